"""A web handler: counts visits in one transaction, and answers 503 when it cannot know. Arguments: URI, and the port (0: a free one).

One client serves all threads of the server."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import vigie_redis

client = vigie_redis.Client(sys.argv[1], decode_responses=True, options={"timeout.call": 2000})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            visits, _ = client.multi([("INCR", f"visits:{self.path}"), ("LPUSH", "log", self.path)]).run()
            self.answer(200, f"{self.path}: {visits} visits\n")
        except vigie_redis.MaybeExecuted:
            self.answer(503, "this visit may have been counted\n")
        except vigie_redis.Error as error:
            self.answer(503, f"this visit was not counted: {error}\n")

    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
print(server.server_port, flush=True)
server.serve_forever()
