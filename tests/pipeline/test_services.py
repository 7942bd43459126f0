"""Backends behind a network, against a server on loopback that misbehaves in every known way."""

import json
import math
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lore_datasets.errors import ConfigError, ServiceError, UsageError
from lore_datasets.store import Store
from pipeline.advise import advise, dry_run
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import backend_from, get_backend
from pipeline.llm.base import Prompt
from pipeline.llm.journal import Journal
from pipeline.llm.openai import letter_probabilities
from pipeline.llm.prices import price

KEY = "AIzaCANARYCANARYCANARYCANARYCANARYCANAR"
ANSWER = '{"ranked": ["explore"], "confidence": 0.5, "reason": "r"}'


class Chaos(BaseHTTPRequestHandler):
    """Answers like Gemini and like OpenAI, or misbehaves as ``server.mode`` says."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.seen.append((self.path, dict(self.headers), body))
            n = len(server.seen)
        mode = server.mode(n) if callable(server.mode) else server.mode
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
            body = {"model": "served-1", "choices": [{"message": {"content": text}, "finish_reason": reason}]}
            if self.server.letters:
                tops = [{"token": t, "logprob": math.log(p)} for t, p in self.server.letters]
                body["choices"][0]["logprobs"] = {"content": [{"top_logprobs": tops}]}
            body["usage"] = {"prompt_tokens": 100, "completion_tokens": 10} if usage else None
        else:
            content = {"role": "model", "parts": [{"text": text}] if text is not None else []}
            body = {"candidates": [{"content": content, "finishReason": finish}], "modelVersion": "served-1"}
            if usage:
                body["usageMetadata"] = {"promptTokenCount": 100, "candidatesTokenCount": 10}
        return json.dumps(body).encode()

    def _ok(self):
        self._send(self._reply(ANSWER))

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
def server(monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Chaos)
    made.mode, made.seen, made.letters, made.lock, made.release = "ok", [], (), threading.Lock(), threading.Event()
    made.daemon_threads, made.after = True, "0"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.release.set()
    made.shutdown()
    thread.join()
    made.server_close()


def backend(name, server, **options):
    url = f"http://127.0.0.1:{server.server_port}" + ("/v1" if name == "openai" else "")
    options = {"timeout_s": 5.0, "backoff_s": 0.01, "attempts": 3, "concurrency": 2, **options}
    return get_backend(name, model="gemini-2.5-flash-lite", base_url=url, **options)


def ask(llm, n=1, schema=True):
    body = {"type": "object"} if schema else None
    return llm.complete([Prompt("prior", "system text", f"state {i}", body, ("explore",)) for i in range(n)])


BOTH = pytest.mark.parametrize("name", ["gemini", "openai"])


@BOTH
def test_a_good_answer_comes_with_model_tokens_time_and_price(name, server):
    response = ask(backend(name, server))[0]
    assert (response.text, response.model, response.error) == (ANSWER, "served-1", None)
    assert (response.tokens_in, response.tokens_out) == (100, 10) and response.latency_s > 0
    assert response.price_usd == 0.0  # loopback is free
    path, headers, body = server.seen[0]
    assert "system text" in json.dumps(body) and "state 0" in json.dumps(body)
    assert KEY not in path and KEY in json.dumps(headers)


@BOTH
@pytest.mark.parametrize(
    ("mode", "requests", "error"),
    [("429", 3, "HTTP 429"), ("500", 3, "HTTP 500"), ("503", 3, "HTTP 503"), ("400", 1, "HTTP 400"),
     ("401", 1, "HTTP 401"), ("404", 1, "HTTP 404"), ("trunc", 3, ""), ("html", 3, "")],
)  # fmt: skip
def test_the_retry_table_holds_and_no_error_shows_a_key(name, server, mode, requests, error):
    server.mode = mode
    response = ask(backend(name, server))[0]
    assert response.error and response.error.startswith(error) and response.finish == "error"
    assert len(server.seen) == requests
    assert KEY not in repr(response) and "secret" not in repr(response)


@BOTH
def test_a_server_that_recovers_is_asked_until_it_does(name, server):
    server.mode = lambda n: "503" if n < 3 else "ok"
    assert ask(backend(name, server))[0].text == ANSWER and len(server.seen) == 3


@BOTH
def test_a_server_that_asks_to_wait_is_left_alone_for_that_long_by_all_questions(name, server):
    server.mode, server.after = lambda n: "429" if n == 1 else "ok", "1"
    started = time.monotonic()
    responses = ask(backend(name, server, concurrency=1), 2)
    assert [r.text for r in responses] == [ANSWER] * 2 and len(server.seen) == 3
    assert time.monotonic() - started >= 1.0


@BOTH
def test_a_wait_beyond_the_deadline_fails_at_once(name, server):
    server.mode, server.after = "429", "3000"
    started = time.monotonic()
    assert "asks to wait 3000 s" in ask(backend(name, server))[0].error
    assert time.monotonic() - started < 4.5 and len(server.seen) == 1


@BOTH
def test_requests_per_minute_hold_and_do_not_eat_the_deadline(name, server):
    llm = backend(name, server, requests_per_minute=60, concurrency=8, timeout_s=2.5)
    started = time.monotonic()
    responses = ask(llm, 9)  # a burst of six, then one in 1.1 s
    assert [r.error for r in responses] == [None] * 9
    assert time.monotonic() - started > 3.2 and max(r.latency_s for r in responses) < 2.5


@BOTH
@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_hanging_or_dripping_server_is_left_at_the_total_deadline(name, server, mode):
    server.mode = mode
    started = time.monotonic()
    response = ask(backend(name, server, timeout_s=0.6, attempts=5))[0]
    assert "0.6 s" in response.error or "Timeout" in response.error
    assert time.monotonic() - started < 2.9


@BOTH
@pytest.mark.parametrize(("mode", "finish"), [("maxtok", "length"), ("safety", "blocked")])
def test_cut_and_blocked_answers_say_so(name, server, mode, finish):
    server.mode = mode
    response = ask(backend(name, server))[0]
    assert (response.finish, response.error) == (finish, None)


@BOTH
def test_missing_usage_counts_as_nothing(name, server):
    server.mode = "nousage"
    response = ask(backend(name, server))[0]
    assert (response.text, response.tokens_in) == (ANSWER, 0)


def test_a_huge_body_is_cut_off(server):
    server.mode = "huge"
    assert "more than" in ask(backend("openai", server))[0].error


def test_an_empty_object_is_no_answer(server):
    server.mode = "empty"
    assert ask(backend("openai", server))[0].error
    assert ask(backend("gemini", server))[0].finish == "blocked"


@BOTH
def test_many_questions_come_back_in_order_over_few_connections(name, server):
    refused = set()

    def refuse_every_seventh_question_once(n):
        question = json.dumps(server.seen[n - 1][2])
        if question in refused or not any(f"state {i}" in question for i in (6, 13, 20, 27)):
            return "ok"
        refused.add(question)
        return "503"

    server.mode = refuse_every_seventh_question_once
    llm = backend(name, server, concurrency=4)
    responses = ask(llm, 30)
    assert len(server.seen) == 34
    assert [r.text for r in responses] == [ANSWER] * 30
    streamed = dict(llm.stream([Prompt("prior", "s", str(i)) for i in range(5)]))
    assert sorted(streamed) == [0, 1, 2, 3, 4]


def test_letter_probabilities_come_from_the_log_probabilities(server):
    server.letters = [("B", 0.6), (" A", 0.2), ("b", 0.1), ("the", 0.05)]
    llm = backend("openai", server, letters=True)
    prompt = Prompt("prior", "s", "u", None, ("explore", "flee", "sleep"), max_tokens=1)
    response = llm.complete([prompt])[0]
    assert response.probabilities == pytest.approx((0.25, 0.75, 0.0))
    assert server.seen[0][2]["top_logprobs"] == 20 and server.seen[0][2]["max_tokens"] == 1
    assert letter_probabilities([("A", math.log(0.2))], 3) is None
    assert letter_probabilities([("A", float("nan"))], 3) is None


@BOTH
def test_a_quota_that_ends_midway_stops_and_the_next_run_asks_only_what_is_missing(name, server, env, states, tmp_path):
    quota = {"left": 30}

    def mode(n):
        with server.lock:
            quota["left"] -= 1
            return "ok" if quota["left"] >= 0 else "429"

    server.mode = mode
    config = PipelineConfig(ask=AskConfig(retries=0), advise=AdviseConfig(skill_questions=0, plan_share=0.0))
    llm = backend(name, server, attempts=1)
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(ServiceError, match="partial: 5 questions in a row failed: HTTP 429"):
            advise(states, env, llm, Store(tmp_path / "s"), "a", config, journal)
        assert len(journal) == 30
        server.mode, server.seen = "ok", []
        ref = advise(states, env, llm, Store(tmp_path / "s"), "a", config, journal)
        assert len(server.seen) == 34
    assert Store(tmp_path / "s").manifest(ref).counts["states"] == 64
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert KEY.encode() not in written


def test_an_address_without_encryption_and_a_missing_key_or_model_are_refused(server, monkeypatch):
    for url in ("http://example.org/v1", "ftp://127.0.0.1", "https://user:pw@example.org", "no url"):
        with pytest.raises(ConfigError):
            get_backend("openai", model="m", base_url=url)
    with pytest.raises(ConfigError, match="model name"):
        get_backend("openai")
    llm = backend("gemini", server)
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(UsageError, match="key"):
        ask(llm)


def test_a_backend_holds_no_key_that_could_be_logged_or_pickled(server):
    import pickle

    for name in ("gemini", "openai"):
        llm = backend(name, server)
        ask(llm)
        assert KEY.encode() not in pickle.dumps(llm) and KEY not in repr(vars(llm))


def test_prices_come_from_the_dated_list_and_a_limit_needs_one(env, states, store):
    assert price("gemini-2.5-flash-lite", 1_000_000, 1_000_000) == pytest.approx(0.5)
    assert price("gemini-2.5-flash-lite-001", 1_000_000, 0, batch=True) == pytest.approx(0.05)
    with pytest.raises(ConfigError, match="no price"):
        price("gemini-2", 1, 1)
    gemini = backend_from(AskConfig(backend="gemini", timeout_s=5.0))
    planned = dry_run(states, env, gemini, store, "a")
    assert 0.005 < planned.price_usd < 0.2 and planned.adviser == "gemini:gemini-2.5-flash-lite"
    unlisted = get_backend("gemini", model="gemini-unlisted")
    assert dry_run(states[:4], env, unlisted, store, "a").price_usd is None
    with pytest.raises(ConfigError, match="no price is known"):
        advise(states, env, unlisted, store, "a", PipelineConfig(ask=AskConfig(max_cost=1.0)))


@pytest.mark.skipif("LORE_GEMINI_LIVE" not in os.environ, reason="asks the real service, which costs money")
@pytest.mark.slow
def test_the_real_service_answers_one_question():
    assert ask(get_backend("gemini"))[0].error is None
