"""An OpenAI-compatible server in a process of its own: it counts what it sees and does the same request once.

``python llm_server.py SECONDS`` prints its port. A request whose ``Idempotency-Key`` was worked on before is answered
from memory, one that is being worked on with 409, as the header's draft standard says. ``GET /counts`` says how often
each question was seen and how often worked on.
"""

import json
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS = float(sys.argv[1]) if sys.argv[1:] else 0.0
ANSWER = json.dumps({"ranked": ["explore"], "confidence": 0.5, "reason": "r"})
REPLY = {"model": "served-1", "choices": [{"message": {"content": ANSWER}, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 100, "completion_tokens": 10}}  # fmt: skip
seen, worked, memory, busy, lock = Counter(), Counter(), {}, set(), threading.Lock()


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle(self):
        with suppress(ConnectionError, ValueError):  # a client that was killed
            super().handle()

    def reply(self, body, status=200):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            body = json.dumps({"seen": seen, "worked": worked, "busy": len(busy)}).encode()
        self.reply(body)

    def do_POST(self):
        key = self.headers["idempotency-key"]
        question = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][1]["content"]
        with lock:
            seen[question] += 1
            known, is_busy = memory.get(key), key in busy
            if known is None and not is_busy:
                busy.add(key)
        if is_busy:
            return self.reply(b"{}", 409)
        if known is None:
            time.sleep(SECONDS)
            known = json.dumps(REPLY).encode()
            with lock:
                worked[question] += 1
                memory[key] = known
                busy.discard(key)
        return self.reply(known)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()
