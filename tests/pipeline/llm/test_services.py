"""Backends behind a network, against a server on loopback that misbehaves in every known way."""

import json
import math
import os
import threading
import time

import numpy as np
import pytest

from lore_datasets.errors import BadInput, ConfigError, ServiceError, UsageError
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states
from pipeline.config import AdviseConfig, AskConfig, PipelineConfig
from pipeline.llm import backend_from, get_backend
from pipeline.llm.backends.openai import letter_probabilities
from pipeline.llm.base import Prompt, complete
from pipeline.llm.journal.journal import Journal
from pipeline.llm.prices import price
from pipeline.rounds.advise import advise, dry_run, prepare

ANSWER = '{"ranked": ["explore"], "confidence": 0.5, "reason": "r"}'
KEY = "AIzaCANARYCANARYCANARYCANARYCANARYCANAR"


def backend(name, server, **options):
    url = f"http://127.0.0.1:{server.server_port}" + ("/v1" if name == "openai" else "")
    options = {"timeout_s": 5.0, "backoff_s": 0.01, "attempts": 3, "concurrency": 2, **options}
    return get_backend(name, model="gemini-2.5-flash-lite", base_url=url, **options)


def ask(llm, n=1, schema=True):
    body = {"type": "object"} if schema else None
    return complete(llm, [Prompt("prior", "system text", f"state {i}", body, ("explore",)) for i in range(n)])


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
    [("429", 3, "HTTP 429"), ("500", 3, "HTTP 500"), ("503", 3, "HTTP 503"), ("409", 3, "HTTP 409"),
     ("400", 1, "HTTP 400"), ("401", 1, "HTTP 401"), ("404", 1, "HTTP 404"), ("moved", 1, "HTTP 307"),
     ("bare400", 1, "HTTP 400"), ("broken400", 1, "HTTP 400"), ("trunc", 3, "ClientPayload"),
     ("gone", 3, "ServerDisconnected"), ("html", 3, "the server")],
)  # fmt: skip
def test_the_retry_table_holds_and_no_error_shows_a_key(name, server, mode, requests, error):
    server.mode = mode
    response = ask(backend(name, server))[0]
    assert response.error and response.error.startswith(error) and response.finish == "error"
    assert len(server.seen) == requests
    assert KEY not in repr(response) and "secret" not in repr(response)


@BOTH
def test_a_server_that_recovers_is_asked_until_it_does(name, server):
    server.mode = lambda question, n: "503" if n < 3 else "ok"
    assert ask(backend(name, server))[0].text == ANSWER and len(server.seen) == 3


@BOTH
def test_a_server_that_asks_to_wait_is_left_alone_for_that_long_by_all_questions(name, server):
    server.mode, server.after = lambda question, n: "429" if n == 1 else "ok", "1"
    started = time.monotonic()
    responses = ask(backend(name, server, concurrency=1), 2)
    assert [r.text for r in responses] == [ANSWER] * 2 and len(server.seen) == 3
    assert time.monotonic() - started >= 1.0


@BOTH
def test_questions_that_wait_for_their_turn_leave_a_server_alone_too_that_asks_for_it(name, server):
    server.mode, server.after = lambda question, n: "429" if n == 1 else "ok", "3"
    started, ended = time.monotonic(), []
    llm = backend(name, server, requests_per_minute=60, concurrency=8)
    questions = [Prompt("prior", "system", f"state {i}", options=("a", "b")) for i in range(8)]
    llm.answer(questions, lambda part: ended.extend(time.monotonic() - started for _ in part), lambda: False)
    assert sorted(ended)[4] < 1.5 and sorted(ended)[5] > 3.0  # five of the burst, then who was refused and who waited


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


def test_content_in_parts_is_read_and_a_refusal_is_blocked_each_for_one_request(server, env, states, store, tmp_path):
    server.mode = "parts"
    llm = backend("openai", server)
    assert [(r.text, r.error) for r in ask(llm)] == [(ANSWER, None)]
    server.mode = "refusal"
    assert [(r.text, r.finish) for r in ask(llm)] == [("", "blocked")] and len(server.seen) == 2
    config = PipelineConfig(ask=AskConfig(retries=2), advise=AdviseConfig(skill_questions=0, plan_share=0.0))
    with Journal(tmp_path / "j.sqlite") as journal, pytest.raises(BadInput, match="no usable advice") as nothing:
        advise(states[:4], env, llm, store, "a", config, journal)
    assert nothing.value.hint == "refused: {'blocked': 4}, the first: answer was blocked" and len(server.seen) == 6


@BOTH
def test_missing_usage_counts_as_nothing(name, server):
    server.mode = "nousage"
    response = ask(backend(name, server))[0]
    assert (response.text, response.tokens_in) == (ANSWER, 0)


@BOTH
def test_a_proxy_of_the_environment_is_used_but_on_loopback(name, server, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ask(backend(name, server))[0].text == ANSWER and server.seen.pop()[0].startswith("/v1")
    away = get_backend(name, model="gemini-2.5-flash-lite", base_url="https://model.invalid/v1", attempts=1)
    assert ask(away)[0].error == "ClientHttpProxyError"
    assert [(path, KEY in json.dumps(headers)) for path, headers, _ in server.seen] == [("model.invalid:443", False)]


@BOTH
@pytest.mark.parametrize("mode", ["huge", "bomb"])
def test_a_huge_body_is_cut_off(name, server, mode):
    server.mode = mode
    assert "more than 1048576 bytes" in ask(backend(name, server))[0].error and len(server.seen) == 1


def test_an_empty_object_is_no_answer(server):
    server.mode = "empty"
    assert ask(backend("openai", server))[0].error
    assert ask(backend("gemini", server))[0].finish == "blocked"


@BOTH
def test_many_questions_come_back_in_order_over_few_connections(name, server):
    refused = set()

    def refuse_every_seventh_question_once(question, n):
        if question in refused or not any(f"state {i}" in question for i in (6, 13, 20, 27)):
            return "ok"
        refused.add(question)
        return "503"

    server.mode = refuse_every_seventh_question_once
    llm = backend(name, server, concurrency=4)
    responses = ask(llm, 30)
    assert len(server.seen) == 34
    assert [r.text for r in responses] == [ANSWER] * 30


@BOTH
def test_nobody_asks_the_next_question_before_the_last_answer_is_written(name, server, tmp_path):
    """Whatever moment a kill takes, no more than ``concurrency`` questions are without a written answer."""
    llm, prompts = backend(name, server, concurrency=3), [Prompt("prior", "s", f"state {i}") for i in range(20)]
    most = []

    class Watching(Journal):
        def put(self, entries, llm):
            most.append(len(server.seen) - len(self))
            super().put(entries, llm)

    server.seen.clear()
    with Watching(tmp_path / "j.sqlite") as journal:
        journal.ask(llm, prompts)
        assert len(journal) == len(server.seen) == 20 >= len(most) and 1 <= max(most) <= 3


def keys(server):
    return [
        {name.lower(): value for name, value in headers.items()}["idempotency-key"] for _, headers, _ in server.seen
    ]


def test_a_repeated_request_bears_the_same_key_and_one_after_an_error_a_new_one(server):
    first, second = backend("openai", server), backend("openai", server)
    ask(first)
    ask(second, 2)
    server.seen.sort(key=lambda seen: seen[2]["messages"][1]["content"])  # two at a time arrive in either order
    same, again, other = keys(server)
    assert same == again != other and len(same) == 66
    server.mode = lambda question, n: "trunc" if n == 4 else "409" if n == 5 else "503" if n == 6 else "ok"
    llm = backend("openai", server, attempts=4)
    assert ask(llm)[0].text == ANSWER  # cut off, still being worked on, an error, answered
    assert keys(server)[3:6] == [same] * 3 and keys(server)[6] not in (same, other)
    ask(llm)
    assert keys(server)[7] == keys(server)[6]
    assert KEY not in str(keys(server)) and backend("openai", server)._session != llm._session


@BOTH
def test_further_drafts_of_an_answer_are_drawn_each_with_a_seed_of_its_own(name, server):
    complete(
        backend(name, server), [Prompt("program", "s", "u", {"type": "object"}, draft=draft) for draft in (0, 1, 2)]
    )
    said = [seen[2].get("generationConfig", seen[2]) for seen in server.seen]
    assert sorted(each["temperature"] for each in said) == [0.0, 0.8, 0.8]
    assert {each.get("seed") for each in said} == {None, 1, 2}


def test_letter_probabilities_come_from_the_log_probabilities(server):
    server.letters = [("B", 0.6), (" A", 0.2), ("b", 0.1), ("the", 0.05)]
    llm = backend("openai", server, letters=True)
    prompt = Prompt("prior", "s", "u", None, ("explore", "flee", "sleep"), max_tokens=1)
    response = complete(llm, [prompt])[0]
    assert response.probabilities == pytest.approx((0.25, 0.75, 0.0))
    assert server.seen[0][2]["top_logprobs"] == 20 and server.seen[0][2]["max_tokens"] == 1
    assert letter_probabilities([("A", math.log(0.2))], 3) is None
    assert letter_probabilities([("A", float("nan"))], 3) is None


@BOTH
def test_a_quota_gone_at_213_of_500_stops_resumably_and_the_next_run_sends_exactly_287(name, server, env, tmp_path):
    server.mode = lambda question, n: "ok" if len(server.answered) < 213 else "429"
    asked = random_states(env, 500, np.random.default_rng(1))
    config = PipelineConfig(ask=AskConfig(shard=100), advise=AdviseConfig(skill_questions=0, plan_share=0.0))
    llm, path = backend(name, server, concurrency=8, attempts=2, timeout_s=60.0), tmp_path / "j.sqlite"
    with Journal(path) as journal:
        with pytest.raises(ServiceError) as stop:
            advise(asked, env, llm, Store(tmp_path / "s"), "a", config, journal)
        assert "partial: 5 questions in a row failed: HTTP 429" in stop.value.message  # what
        assert f"{llm.name} at {server.url}" in stop.value.message  # where
        assert stop.value.kept == f"213 answers in {path}" and "run the same command again" in stop.value.hint
        assert stop.value.exit_code == 4 and len(journal) == 213 and Store(tmp_path / "s").names() == []
    server.mode, server.seen = "ok", []
    with Journal(path) as journal:
        ref = advise(asked, env, llm, Store(tmp_path / "s"), "a", config, journal)
    manifest = Store(tmp_path / "s").manifest(ref)
    assert len(server.seen) == 287 and len(set(server.answered)) == len(server.answered) == 500
    assert manifest.counts["states"] == 500 and manifest.cost["asked_now"] == 287
    assert manifest.cost["from_journal"] == 213
    assert KEY.encode() not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


@BOTH
def test_what_is_in_flight_when_asking_stops_is_waited_for_and_kept(name, server, tmp_path):
    failed = threading.Event()

    def mode(question, n):
        if question == "state 0":
            return "late"
        if n > 6:
            failed.set()
        return "429"

    server.mode, server.late = mode, failed
    prompts = [Prompt("prior", "s", f"state {i}", {"type": "object"}) for i in range(40)]
    llm = backend(name, server, concurrency=4, attempts=1, timeout_s=60.0)
    with Journal(tmp_path / "j.sqlite") as journal:
        with pytest.raises(ServiceError, match="5 questions in a row failed"):
            journal.ask(llm, prompts)
        assert len(journal) == 1 and len(server.seen) < 20
        server.mode, server.seen = "ok", []
        journal.ask(llm, prompts)
        assert len(server.seen) == 39


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


@BOTH
def test_a_backend_holds_no_key_that_could_be_logged(name, server):
    llm = backend(name, server)
    ask(llm)
    assert KEY not in repr([value for name, value in vars(llm).items() if name != "_portals"])


def test_prices_come_from_the_dated_list_and_a_limit_needs_one(env, states, store):
    assert price("gemini-2.5-flash-lite", 1_000_000, 1_000_000) == pytest.approx(0.5)
    assert price("gemini-2.5-flash-lite-001", 1_000_000, 0, batch=True) == pytest.approx(0.05)
    with pytest.raises(ConfigError, match="no price"):
        price("gemini-2", 1, 1)
    gemini = backend_from(AskConfig(backend="gemini", timeout_s=5.0))
    planned = dry_run(prepare(states, env, gemini, store, "a"))
    assert 0.005 < planned.price_usd < 0.2 and planned.adviser == "gemini:gemini-2.5-flash-lite"
    unlisted = get_backend("gemini", model="gemini-unlisted")
    assert dry_run(prepare(states[:4], env, unlisted, store, "a")).price_usd is None
    with pytest.raises(ConfigError, match="no price is known"):
        advise(states, env, unlisted, store, "a", PipelineConfig(ask=AskConfig(max_cost=1.0)))


@pytest.mark.skipif("LORE_GEMINI_LIVE" not in os.environ, reason="asks the real service, which costs money")
@pytest.mark.slow
def test_the_real_service_answers_one_question():
    assert ask(get_backend("gemini"))[0].error is None
