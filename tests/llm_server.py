"""A language model's server on loopback for tests: scripted answers, and every known way to misbehave.

``python llm_server.py SECONDS`` is one in a process of its own: it prints its port and works on each request once.
"""

import contextlib
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY = "AIzaCANARYCANARYCANARYCANARYCANARYCANAR"
ANSWER = '{"ranked": ["explore"], "confidence": 0.5, "reason": "r"}'


def killed_when_reached(server, code, *words):
    """Run ``code`` in a process that is killed once ``server.reached`` is set; then nothing is held any more."""
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root / "datasets"), str(root)])
    command = [sys.executable, "-c", code, *map(str, words)]
    child = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": paths})
    try:
        assert server.reached.wait(60)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    server.hold = ""


class ScriptedModel(BaseHTTPRequestHandler):
    """Answers like Gemini and like OpenAI, or misbehaves as ``server.mode`` (or ``mode(question, count)``) says.

    ``server.answer`` (or ``answer(question)``) is the text of a good answer, ``server.version`` the model it names.
    ``server.seen`` holds (path, headers, body) of every request, ``server.questions`` how often each was seen,
    ``server.answered`` those that got a good answer.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError, ValueError):  # a client that was killed
            super().handle()

    def do_GET(self):
        """How often each question was seen and worked on, and how many are being worked on."""
        with self.server.lock:
            told = {name: getattr(self.server, name) for name in ("questions", "worked")}
            body = json.dumps({**told, "busy": len(self.server.busy)}).encode()
        self._send(body)

    def do_POST(self):
        server = self.server
        self.body = body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        messages = body.get("messages") or [{"content": body["contents"][0]["parts"][0]["text"]}]
        self.question = messages[-1]["content"]
        with server.lock:
            server.seen.append((self.path, dict(self.headers), body))
            server.questions[self.question] += 1
            mode = server.mode(self.question, len(server.seen)) if callable(server.mode) else server.mode
            if mode == "ok":
                server.answered.append(self.question)
        getattr(self, f"_{mode}", lambda: self._status(int(mode)))()

    def _send(self, data, status=200, kind="application/json", length=None, headers=()):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data) if length is None else length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _reply(self, text, finish="STOP", usage=True):
        if "chat/completions" in self.path:
            reason = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}[finish]
            body = {"choices": [{"message": {"content": text}, "finish_reason": reason}], "model": self._version()}
            if self.server.letters:
                tops = [{"token": t, "logprob": math.log(p)} for t, p in self.server.letters]
                body["choices"][0]["logprobs"] = {"content": [{"top_logprobs": tops}]}
            body["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, **self.server.usage} if usage else None
        else:
            content = {"role": "model", "parts": [{"text": text}] if text is not None else []}
            body = {"candidates": [{"content": content, "finishReason": finish}], "modelVersion": self._version()}
            if usage:
                body["usageMetadata"] = {"promptTokenCount": 100, "candidatesTokenCount": 10, **self.server.usage}
        return json.dumps(body).encode()

    def _version(self):
        version = self.server.version
        return version(self.question) if callable(version) else version

    def _ok(self):
        answer = self.server.answer
        self._send(self._reply(answer(self.question) if callable(answer) else answer))

    def _once(self):
        """Work on a request once, ``server.seconds`` long: a repeat is answered from memory, or with 409 meanwhile."""
        server, key = self.server, self.headers["idempotency-key"]
        with server.lock:
            known, is_busy = server.memory.get(key), key in server.busy
            if known is None and not is_busy:
                server.busy.add(key)
        if is_busy:
            return self._status(409)
        if known is None:
            time.sleep(server.seconds)
            known = self._reply(server.answer)
            with server.lock:
                server.worked[self.question] += 1
                server.memory[key] = known
                server.busy.discard(key)
        return self._send(known)

    def _late(self):
        self.server.late.wait(30)
        self._ok()

    def _nousage(self):
        self._send(self._reply(ANSWER, usage=False))

    def _maxtok(self):
        self._send(self._reply(ANSWER[:20], "MAX_TOKENS"))

    def _safety(self):
        self._send(self._reply(None, "SAFETY"))

    def _parts(self):
        """The content as a list of parts, as some servers give it."""
        half = len(ANSWER) // 2
        text = [{"type": "text", "text": ANSWER[:half]}, {"type": "reasoning", "text": "{}"},
                {"type": "output_text", "text": ANSWER[half:]}]  # fmt: skip
        self._send(self._reply(text))

    def _refusal(self):
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
        self._send(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())

    def _empty(self):
        self._send(b"{}")

    def _html(self):
        self._send(b"<html>proxy</html>", kind="text/html")

    def _trunc(self):
        self._send(self._reply(ANSWER)[:30], length=4000)
        self.close_connection = True

    def _huge(self):
        self._send(b" " * 3_000_000 + self._reply(ANSWER))

    def do_CONNECT(self):
        self.server.seen.append((self.path, dict(self.headers), {}))
        self._send(b"", 502)

    def _gone(self):
        self.close_connection = True

    def _reasoning(self):
        """A model that thinks: it has a parameter of its own for the limit, and one temperature."""
        for name in ("max_tokens", "temperature"):
            if name in self.body:
                error = {"message": "unsupported", "param": name, "code": "unsupported_parameter"}
                return self._send(json.dumps({"error": error}).encode(), 400)
        return self._ok()

    def _badkey(self):
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        error = {"code": 400, "message": f"no {KEY}", "status": "INVALID_ARGUMENT", "details": details}
        self._send(json.dumps({"error": error}).encode(), 400)

    def _bare400(self):
        self._send(b"", 400)

    def _broken400(self):
        self._send(b"{'error':", 400)

    def _moved(self):
        self._send(b"{}", 307, headers=[("location", f"{self.server.url}/elsewhere")])

    def _bomb(self):
        self._send(gzip.compress(b" " * 50_000_000), headers=[("content-encoding", "gzip")])

    def _hang(self):
        self.server.release.wait(5)
        self.close_connection = True

    def _drip(self):
        data = self._reply(ANSWER)
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        for byte in data:
            if self.server.release.wait(0.05):
                break
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                break
        self.close_connection = True

    def _status(self, status):
        body = {"error": {"code": status, "message": f"secret {KEY} and more", "status": "SOME_STATUS"}}
        self._send(json.dumps(body).encode(), status, headers=[("retry-after", self.server.after)])


def make(handler=ScriptedModel, **attributes):
    """A server that is not started yet; ``attributes`` over the defaults of a :class:`ScriptedModel`."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    made.lock, made.release, made.daemon_threads = threading.Lock(), threading.Event(), True
    made.url = f"http://127.0.0.1:{made.server_port}"
    about = {"mode": "ok", "answer": ANSWER, "version": "served-1", "letters": (), "after": "0", "usage": {}}
    about |= {"seen": [], "answered": [], "questions": Counter()}
    about |= {"worked": Counter(), "memory": {}, "busy": set(), "seconds": 0.0}
    vars(made).update({**about, **attributes})
    return made


@contextlib.contextmanager
def running(handler=ScriptedModel, **attributes):
    """:func:`make`, served by a thread until the block ends."""
    made = make(handler, **attributes)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.release.set()
        made.shutdown()
        thread.join()
        made.server_close()


if __name__ == "__main__":
    alone = make(mode="once", seconds=float(sys.argv[1]))
    print(alone.server_port, flush=True)
    alone.serve_forever()
