"""An issuer of tokens that serves the current contents of a file over HTTPS.

usage: python_issuer.py PORT CERTIFICATE KEY FILE     prints "fetched" for each request

A path that ends in /.well-known/openid-configuration returns the file openid-configuration in the same directory, if it exists,
and prints "discovered". With "-" as the certificate, the server uses plain HTTP.
"""

import http.server
import os
import ssl
import sys

port, certificate, key, file = sys.argv[1:]


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, event = file, "fetched"
        if self.path.endswith("/.well-known/openid-configuration"):
            name, event = os.path.join(os.path.dirname(file), "openid-configuration"), "discovered"
        if not os.path.exists(name):
            return self.send_error(404)
        with open(name, "rb") as opened:
            body = opened.read()
        print(event, flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/jwk-set+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Issuer)
if certificate != "-":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
