"""What is in flight when asking ends: an interrupt or an error loses no answer, a kill repeats what was in flight."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict

import pytest

from lore_datasets.errors import Stopped
from pipeline.config import AskConfig
from pipeline.llm import backend_from
from pipeline.llm.base import Prompt, never
from pipeline.llm.journal.journal import Journal

PROMPTS = [Prompt("prior", "system", f"state {i}", {"type": "object"}, ("explore",)) for i in range(20)]
IN_FLIGHT, BEFORE = 3, 10
ASKING = """
import json, signal, sys
from pipeline.config import AskConfig
from pipeline.llm import backend_from
from pipeline.llm.base import Prompt
from pipeline.llm.journal.journal import Journal

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
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
        words = [sys.executable, "-c", ASKING, json.dumps([asdict(ask), str(path)])]
        running.append(subprocess.Popen(words, stderr=subprocess.PIPE))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def held(server):
    """The server answers ten questions; it keeps what comes then until ``server.late`` is set."""
    server.late = threading.Event()
    server.mode = lambda question, n: "ok" if n <= BEFORE or server.late.is_set() else "late"
    return server


def until(holds, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def questions(server):
    """How often each question was seen."""
    return Counter(json.dumps(body).partition("state ")[2].partition('"')[0] for _, _, body in server.seen)


def ask_the_rest(name, server, path):
    server.late.set()
    with Journal(path) as journal:
        before = len(journal)
        assert all(r.error is None for r in journal.ask(backend_from(settings(name, server)), PROMPTS))
        assert len(journal) == len(PROMPTS)
    return before


@BOTH
def test_an_interrupt_waits_for_the_answers_in_flight_and_nothing_is_asked_again(name, held, path, run):
    process = run(settings(name, held))
    until(lambda: len(held.seen) == BEFORE + IN_FLIGHT)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None and len(held.seen) == BEFORE + IN_FLIGHT
    held.late.set()
    said = process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGINT and b"waiting for the answers in flight" in said
    assert ask_the_rest(name, held, path) == BEFORE + IN_FLIGHT
    assert set(questions(held).values()) == {1} and len(questions(held)) == len(PROMPTS)


@BOTH
def test_a_second_interrupt_leaves_what_is_in_flight(name, held, path, run):
    process = run(settings(name, held))
    until(lambda: len(held.seen) == BEFORE + IN_FLIGHT)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert ask_the_rest(name, held, path) == BEFORE
    assert sorted(questions(held).values()) == [1] * (len(PROMPTS) - IN_FLIGHT) + [2] * IN_FLIGHT


@BOTH
def test_a_kill_repeats_what_was_in_flight_with_the_same_key_and_nothing_else(name, held, path, run):
    process = run(settings(name, held))
    until(lambda: len(held.seen) == BEFORE + IN_FLIGHT)
    process.kill()
    process.wait()
    assert ask_the_rest(name, held, path) == BEFORE
    assert sorted(questions(held).values()) == [1] * (len(PROMPTS) - IN_FLIGHT) + [2] * IN_FLIGHT
    if name == "openai":
        keys = {(json.dumps(body), {k.lower(): v for k, v in head.items()}["idempotency-key"])
                for _, head, body in held.seen}  # fmt: skip
        assert len(keys) == len(PROMPTS)


def test_stopping_one_thread_hands_over_what_it_has_in_flight(held, path):
    stopping = threading.Event()
    with Journal(path) as journal:
        raised = []

        def work():
            try:
                journal.ask(backend_from(settings("openai", held)), PROMPTS, stop=stopping.is_set)
            except Stopped as stop:
                raised.append(stop)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: len(held.seen) == BEFORE + IN_FLIGHT)
        stopping.set()
        time.sleep(0.3)
        held.late.set()
        thread.join()
        assert len(raised) == 1 and len(journal) == BEFORE + IN_FLIGHT == len(held.seen)


def test_all_threads_that_ask_a_service_share_its_concurrency(server):
    llm, most, lock, now = backend_from(settings("openai", server)), [], threading.Lock(), [0]

    def answer(question):
        with lock:
            now[0] += 1
            most.append(now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return "{}"

    server.answer, got = answer, []
    threads = [threading.Thread(target=llm.answer, args=(PROMPTS, got.extend, never)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 3 * len(PROMPTS) and max(most) == IN_FLIGHT
    llm.answer(PROMPTS, got.extend, never)  # in a new event loop
    assert len(got) == 4 * len(PROMPTS)
