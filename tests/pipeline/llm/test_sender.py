"""Questions asked by a process of their own: whoever is killed, answers that are paid for are written."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict

import psutil
import pytest

from lore_datasets.errors import ServiceError, UsageError
from pipeline.config import AskConfig
from pipeline.llm import backend_from, get_backend
from pipeline.llm.base import Prompt
from pipeline.llm.http.sender import Sender, wait_for_senders
from pipeline.llm.journal.journal import Budget, Journal, JournalStats

PROMPTS = [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("explore",)) for i in range(20)]
IN_FLIGHT = 3
PARENT = """
import json, sys
from pipeline.config import AskConfig
from pipeline.llm import backend_from
from pipeline.llm.base import Prompt
from pipeline.llm.journal.journal import Journal

ask, path = json.loads(sys.argv[1])
prompts = [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("explore",)) for i in range(20)]
with Journal(path) as journal:
    journal.ask(backend_from(AskConfig(**ask)), prompts)
"""
BOTH = pytest.mark.parametrize("name", ["gemini", "openai"])


def settings(name, server, **more):
    url = server.url + ("/v1" if name == "openai" else "")
    given = {"timeout_s": 20.0, "concurrency": IN_FLIGHT, **more}
    return AskConfig(backend=name, model="gemini-2.5-flash-lite", base_url=url, **given)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def run(path):
    """Ask all questions in a process of its own."""
    running = []

    def start(ask):
        running.append(subprocess.Popen([sys.executable, "-c", PARENT, json.dumps([asdict(ask), str(path)])]))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def hold(server, after):
    """Let the server answer ``after`` questions; it keeps what comes then until ``server.late`` is set."""
    server.late = threading.Event()
    server.mode = lambda question, n: "ok" if n <= after or server.late.is_set() else "late"


def until(holds, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def questions(server):
    """How often each question was seen."""
    return Counter(json.dumps(body).partition("state ")[2].partition('"')[0] for _, _, body in server.seen)


@BOTH
def test_what_is_in_flight_at_a_kill_is_written_and_the_next_run_waits_for_it(name, server, path, run, caplog):
    hold(server, 10)
    process = run(settings(name, server))
    until(lambda: len(server.seen) == 10 + IN_FLIGHT)
    process.kill()
    process.wait()
    with Journal(path) as journal, caplog.at_level(logging.WARNING, "lore"):
        thread = threading.Thread(target=journal.ask, args=(backend_from(settings(name, server)), PROMPTS))
        thread.start()
        until(lambda: "waiting for the answers to what a stopped run has in flight" in caplog.text)
        time.sleep(0.2)
        assert len(server.seen) == 10 + IN_FLIGHT
        server.late.set()
        thread.join()
        assert len(journal) == len(PROMPTS) and set(questions(server).values()) == {1}
    assert not list(path.parent.glob(".journal*"))


@BOTH
def test_a_killed_sender_is_an_error_that_the_next_run_goes_on_from(name, server, path):
    hold(server, 10)

    def kill():
        until(lambda: len(server.seen) == 10 + IN_FLIGHT)
        sender = next(p for p in psutil.Process().children() if "pipeline.llm.http.sending" in p.cmdline())
        assert sender.cmdline()[1:] == ["-m", "pipeline.llm.http.sending"]
        sender.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with Journal(path) as journal:
        with pytest.raises(ServiceError, match=r"the process that asks has ended \(code -9\)"):
            journal.ask(backend_from(settings(name, server)), PROMPTS)
        killer.join()
        with pytest.raises(ServiceError, match="has ended"):
            journal.ask(backend_from(settings(name, server)), PROMPTS)
    server.late.set()
    with Journal(path) as journal:
        assert len(journal) == 10
        journal.ask(backend_from(settings(name, server)), PROMPTS)
    assert sorted(questions(server).values()) == [1] * (len(PROMPTS) - IN_FLIGHT) + [2] * IN_FLIGHT


def test_a_sender_ends_at_the_deadline_of_its_questions_at_the_latest(server, path, run):
    hold(server, 10)
    process = run(settings("openai", server, timeout_s=1.0))
    until(lambda: len(server.seen) == 10 + IN_FLIGHT)
    process.kill()
    process.wait()
    began = time.monotonic()
    wait_for_senders(path)
    assert time.monotonic() - began < 2.5
    with Journal(path) as journal:
        assert len(journal) == 10 and len(journal.failures()) == IN_FLIGHT


def test_what_asking_leaves_in_flight_when_it_stops_is_not_asked_again_by_the_same_journal(server, path):
    hold(server, 1)
    llm = backend_from(settings("openai", server))

    def stop(part):
        raise KeyboardInterrupt

    with Journal(path) as journal:
        sender = journal._sender(llm)
        assert isinstance(sender, Sender)
        with pytest.raises(KeyboardInterrupt):
            sender.ask(Journal.keys(llm, PROMPTS), PROMPTS, IN_FLIGHT, stop)
        threading.Timer(0.3, server.late.set).start()
        assert [r.error for r in journal.ask(llm, PROMPTS)] == [None] * len(PROMPTS)
    assert len(questions(server)) == len(PROMPTS) and set(questions(server).values()) == {1}


def test_the_budget_the_counts_and_the_order_are_those_of_asking_in_one_process(server, path):
    llm, budget, stats = backend_from(settings("openai", server)), Budget(max_requests=12), JournalStats()
    with Journal(path) as journal:
        with pytest.raises(ServiceError, match="the limit on cost or requests"):
            journal.ask(llm, PROMPTS, budget=budget, stats=stats)
        assert len(server.seen) == len(journal) == stats.asked == 12 and stats.tokens_in == 1200
        responses = journal.ask(llm, PROMPTS)
        plain = get_backend("openai", model="gemini-2.5-flash-lite", base_url=llm.base_url)
        assert responses == journal.ask(plain, PROMPTS) and len(server.seen) == len(PROMPTS)
        server.mode = "400"
        with pytest.raises(ServiceError, match=f"5 questions in a row failed: HTTP 400.*{llm.name} at {server.url}"):
            journal.ask(llm, [Prompt("plan", "system", f"state {i}") for i in range(40)])
        assert len(journal.failures()) < 5 + IN_FLIGHT


def test_an_error_of_the_other_process_is_raised_as_what_it_is(server, path, monkeypatch):
    monkeypatch.delenv("GEMINI_API_KEY")
    with Journal(path) as journal, pytest.raises(UsageError, match="backend gemini needs a key"):
        journal.ask(backend_from(settings("gemini", server)), PROMPTS)


def test_without_a_file_questions_are_asked_in_this_process(server):
    with Journal() as journal:
        llm = backend_from(settings("openai", server))
        assert llm.spec is not None and journal._sender(llm) is None
        journal.ask(llm, PROMPTS)
    assert len(server.seen) == len(PROMPTS)
