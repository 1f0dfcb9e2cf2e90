"""An issuer of tokens: serves one file over HTTPS, as it is at that moment.

usage: issuer.py PORT CERTIFICATE KEY FILE     prints "fetched" for each time that the file was asked for
"""

import http.server
import ssl
import sys

port, certificate, key, file = sys.argv[1:]


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(file, "rb") as opened:
            body = opened.read()
        print("fetched", flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/jwk-set+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Issuer)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
