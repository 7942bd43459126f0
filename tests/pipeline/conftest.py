"""A hand-made Crafter state, random ones, a scripted adviser, a server on loopback that misbehaves in known ways."""

import gzip
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from lore_datasets.environments import get_environment
from lore_datasets.language.geometry import StateView
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states
from lore_datasets.types import SymbolicState
from pipeline.llm.base import Capabilities, Completing, Response

ROWS = (
    "ggggTgggg",
    "gggTgggsg",
    "wwggggsss",
    "wwgtPcgss",
    "wwgggggls",
    "ggggzgggg",
    "gggggggg.",
)
KINDS = {"g": "grass", "T": "tree", "s": "stone", "w": "water", "t": "table", "P": "player", "c": "cow", "l": "lava",
         "z": "zombie", ".": "nothing"}  # fmt: skip

KEY = "AIzaCANARYCANARYCANARYCANARYCANARYCANAR"
ANSWER = '{"ranked": ["explore"], "confidence": 0.5, "reason": "r"}'


@pytest.fixture(scope="session")
def env():
    return get_environment("crafter")


@pytest.fixture(scope="session")
def make_state(env):
    """A state from rows of letters, with inventory, vitals and achievements by name."""
    vocab = env.vocab

    def make(rows=ROWS, facing="left", inventory=None, vitals=None, unlocked=(), daylight=200, sleeping=0):
        view = np.array([[vocab.target(KINDS[c]) for c in row] for row in rows], np.uint8)
        held = {**dict.fromkeys(vocab.items, 0), **(inventory or {})}
        signs = {**dict.fromkeys(vocab.vitals, 9), **(vitals or {})}
        names = [d[0] for d in vocab.directions]
        return SymbolicState(
            view=view,
            inventory=np.array([held[i] for i in vocab.items], np.uint8),
            vitals=np.array([signs[v] for v in vocab.vitals], np.uint8),
            facing=np.uint8(names.index(facing)),
            sleeping=np.uint8(sleeping),
            daylight=np.uint8(daylight),
            unlocked=np.array([a in unlocked for a in vocab.achievements], np.uint8),
        )

    return make


@pytest.fixture(scope="session")
def make_view(env, make_state):
    """A StateView of :func:`make_state`'s state."""
    return lambda *args, **kwargs: StateView(make_state(*args, **kwargs), env.vocab)


@pytest.fixture(scope="session")
def states(env):
    """64 random states."""
    return random_states(env, 64, np.random.default_rng(7))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


class Scripted(Completing):
    """An adviser whose answers are made by a function of the prompt; counts what it was asked."""

    def __init__(self, make, name="scripted", **capabilities):
        self.make, self.name, self.asked = make, name, []
        self.capabilities = Capabilities(**capabilities)

    def complete(self, prompts):
        self.asked += prompts
        made = [self.make(p) for p in prompts]
        return [a if isinstance(a, Response) else Response(a, model=self.name) for a in made]


def best_first(prompt):
    """The JSON of an adviser that takes options as they come."""
    if prompt.kind == "prior":
        return json.dumps({"ranked": list(prompt.options[:3]), "confidence": 0.7, "reason": "as listed"})
    if prompt.kind == "plan":
        return json.dumps({"plans": [{"steps": [{"do": prompt.options[0], "times": 2}], "score": 0.5}]})
    return json.dumps({"skills": []})


@pytest.fixture
def scripted():
    """Make a scripted adviser; without a function it takes options as they come."""
    return lambda make=best_first, **capabilities: Scripted(make, **capabilities)


class Chaos(BaseHTTPRequestHandler):
    """Answers like Gemini and like OpenAI, or misbehaves as ``server.mode`` (or ``mode(question, count)``) says.

    ``server.answer`` (or ``answer(question)``) is the text of a good answer, ``server.version`` the model it names.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        self.body = body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        messages = body.get("messages") or [{"content": body["contents"][0]["parts"][0]["text"]}]
        self.question = messages[-1]["content"]
        with server.lock:
            server.seen.append((self.path, dict(self.headers), body))
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

    def _late(self):
        self.server.late.wait(30)
        self._ok()

    def _nousage(self):
        self._send(self._reply(ANSWER, usage=False))

    def _maxtok(self):
        self._send(self._reply(ANSWER[:20], "MAX_TOKENS"))

    def _safety(self):
        self._send(self._reply(None, "SAFETY"))

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


@pytest.fixture
def serve(monkeypatch):
    """Start a server on loopback, ``serve(Handler, **attributes)``, with a canary for a key; it ends with the test."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    running = []

    def start(handler, **attributes):
        made = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        made.lock, made.release, made.daemon_threads = threading.Lock(), threading.Event(), True
        made.url = f"http://127.0.0.1:{made.server_port}"
        vars(made).update(attributes)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((made, thread))
        return made

    yield start
    for made, thread in running:
        made.release.set()
        made.shutdown()
        thread.join()
        made.server_close()


@pytest.fixture
def server(serve):
    """A :class:`Chaos` server; ``seen`` holds what it was asked, ``answered`` the questions that got a good answer."""
    return serve(
        Chaos, mode="ok", answer=ANSWER, version="served-1", seen=[], answered=[], letters=(), after="0", usage={}
    )
