"""An issuer of tokens: serves one file over HTTPS, as it is at that moment.

usage: issuer.py PORT CERTIFICATE KEY FILE     prints "fetched" for each time that the file was asked for

A path that ends in /.well-known/openid-configuration is the file of that name beside it, where there is one, and prints
"discovered". With "-" as its certificate it speaks plain HTTP.
"""

import http.server
import os
import ssl
import sys

port, certificate, key, file = sys.argv[1:]


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, word = file, "fetched"
        if self.path.endswith("/.well-known/openid-configuration"):
            name, word = os.path.join(os.path.dirname(file), "openid-configuration"), "discovered"
        if not os.path.exists(name):
            return self.send_error(404)
        with open(name, "rb") as opened:
            body = opened.read()
        print(word, flush=True)
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
