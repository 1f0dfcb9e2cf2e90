"""The instance metadata service (IMDSv2) of a host. The third query of its lifecycle state announces the termination.

usage: python_metadata.py PORT
"""

import http.server
import sys

queries = 0


class Metadata(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text=""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        good = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if good else 404, "the-token" if good else "")

    def do_GET(self):
        global queries
        if self.headers["X-aws-ec2-metadata-token"] != "the-token":
            return self.answer(401)
        if self.path == "/latest/meta-data/instance-id":
            return self.answer(200, "i-0123456789abcdef0")
        if self.path == "/latest/meta-data/autoscaling/target-lifecycle-state":
            queries += 1
            return self.answer(200, "InService" if queries < 3 else "Terminated")
        self.answer(404)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Metadata).serve_forever()
