"""Shards on threads and on a Dask cluster: the same rows, nothing asked twice, limits over all of them together."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest

from flows.cluster.leases import Leases
from flows.config import AdviceJob
from flows.jobs import tasks
from flows.jobs.shards import cut
from lore.config import load_config
from lore.training.loop import train
from lore_datasets.advice import shared_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError, ServiceError
from lore_datasets.store.store import Store
from lore_datasets.testing import small_states
from pipeline.config import AdviseConfig, AskConfig, SelectConfig
from pipeline.llm.base import Prompt, Response
from pipeline.llm.journal.journal import Journal
from pipeline.llm.journal.shard_journal import ShardJournal, merge, rows_of, spent

STATES = 150


class Model(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that names the first option, and counts each question it received."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError, ValueError):  # a client that was killed
            super().handle()

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = body["messages"][1]["content"]
        with server.lock:
            server.seen[question] += 1
            number = sum(server.seen.values())
        server.gate(number)
        if "plans" in json.dumps(body.get("response_format", {})):
            text = json.dumps({"plans": []})
        else:
            text = json.dumps({"ranked": ["explore"], "confidence": 0.5, "reason": "r"})
        reply = {"model": "served-1", "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
                 "usage": {"prompt_tokens": 100, "completion_tokens": 10}}  # fmt: skip
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    made.seen, made.lock, made.gate = Counter(), threading.Lock(), lambda number: None
    made.daemon_threads, made.block_on_close = True, False
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def job(server, own_datasets):
    """Ask the loopback server one question about each of 150 states, in shards of 64."""
    ref = small_states(own_datasets, get_environment("crafter"), STATES)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return AdviceJob(
        str(ref),
        "talk",
        select=SelectConfig(budget=STATES, novelty=0.0),
        ask=AskConfig(backend="openai", model="m", base_url=url, shard=64, concurrency=4, retries=0),
        advise=AdviseConfig(plan_share=0.0, skill_questions=0),
        distil=False,
    )


@pytest.fixture(scope="module")
def workers(started_cluster):
    """A cluster of two worker processes on this machine."""
    with started_cluster(2) as client:
        yield client


def same_rows(first, second):
    a, b = (Store().open(ref).arrays for ref in (first, second))
    return a.keys() == b.keys() and all(np.array_equal(a[p], b[p]) for p in a if not p.endswith("latency_s"))


def test_threads_make_the_version_that_one_shard_after_the_other_makes(job, server, tmp_path):
    one = tasks.advise_states(replace(job, parallel=1))
    several = tasks.advise_states(replace(job, name="other", parallel=3, journal=str(tmp_path / "other.sqlite")))
    assert Store().manifest(one).counts["rows"] == STATES and same_rows(one, several)
    assert set(server.seen.values()) == {2}


def test_a_worker_killed_in_the_middle_of_a_shard_loses_nothing_that_was_answered(job, server, workers, own_datasets):
    """What the killed worker had in flight its sender waits for and writes: every question is seen exactly once."""
    pids = list(workers.run(os.getpid).values())
    held, go = [], threading.Event()

    def gate(number):
        if number > 40 and not go.is_set():
            held.append(number)
            go.wait(60)

    def kill():
        folder = own_datasets / "journal.sqlite.shards" / "talk"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (len(held) < 8 or journaled(folder) < 40):
            time.sleep(0.05)
        waiting.extend([len(held), journaled(folder)])
        os.kill(pids[0], signal.SIGKILL)
        go.set()

    waiting: list[int] = []
    server.gate = gate
    killer = threading.Thread(target=kill)
    killer.start()
    ref = tasks.advise_states(replace(job, dask=workers.scheduler.address))
    killer.join()
    assert waiting == [8, 40]
    assert Store().manifest(ref).counts["rows"] == STATES
    assert Counter(server.seen.values()) == {1: STATES}
    assert same_rows(ref, tasks.advise_states(replace(job, name="other")))  # served from the merged journal
    assert sum(server.seen.values()) == STATES
    assert not list((own_datasets / "journal.sqlite.shards" / "talk").glob("[!.]*"))


def journaled(folder: Path) -> int:
    """Answers in the shard journals, whose files their workers keep locked: the request hashes in their bytes."""
    found = [set(re.findall(rb"[0-9a-f]{64}", path.read_bytes())) for path in folder.glob("*.sqlite")]
    return sum(len(hashes) - 1 for hashes in found if hashes)  # one is that of the shared prefix


def test_the_limit_on_requests_holds_over_all_workers_together(job, server, workers):
    limited = replace(job, dask=workers.scheduler.address, ask=replace(job.ask, max_requests=100))
    with pytest.raises(ServiceError, match="partial: the limit"):
        tasks.advise_states(limited)
    assert sum(server.seen.values()) == 100
    ref = tasks.advise_states(replace(job, dask=workers.scheduler.address))
    assert Store().manifest(ref).counts["rows"] == STATES
    assert set(server.seen.values()) == {1}


def test_every_socket_of_a_local_cluster_listens_on_loopback(workers):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 3 and set(listening) <= {"127.0.0.1", "::1"}


def test_an_address_where_no_scheduler_is_ends_in_a_named_error(job, server, monkeypatch):
    monkeypatch.setattr("flows.cluster.cluster._SECONDS", 0.5)
    with pytest.raises(ServiceError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        tasks.advise_states(replace(job, dask="tcp://127.0.0.1:9"))
    assert not server.seen
    with pytest.raises(ConfigError, match="dask"):
        replace(job, dask="somewhere")


def test_what_a_stopped_run_left_in_shard_journals_is_found_by_the_next(job, server, tmp_path, own_datasets):
    elsewhere = tasks.advise_states(replace(job, name="before", journal=str(tmp_path / "far.sqlite")))
    folder = own_datasets / "journal.sqlite.shards" / "talk"
    with Journal(tmp_path / "far.sqlite") as far, ShardJournal(folder / "left.sqlite") as left:
        merge(rows_of(far), left)
        assert spent(left) == (STATES, 0.0)
    assert same_rows(elsewhere, tasks.advise_states(job))
    assert set(server.seen.values()) == {1} and not list(folder.glob("*.sqlite"))


def test_finished_shards_are_kept_until_the_version_is_there(job, server, own_datasets):
    def gate(number):
        if number > 128:
            raise ConnectionError

    server.gate = gate
    quick = replace(job.ask, timeout_s=1.0)
    with pytest.raises(ServiceError):
        tasks.advise_states(replace(job, parallel=1, ask=quick))
    folder = own_datasets / "journal.sqlite.shards" / "talk"
    assert len(list(folder.glob("*.json"))) == 2
    (own_datasets / "journal.sqlite").rename(own_datasets / "gone.sqlite")  # the shards alone have to do
    server.gate, before = lambda number: None, server.seen.copy()
    ref = tasks.advise_states(replace(job, parallel=1))
    assert Store().manifest(ref).counts["rows"] == STATES
    assert sum((server.seen - before).values()) == STATES - 128
    assert not list(folder.glob("*.json"))


def test_merging_a_journal_twice_changes_nothing(tmp_path):
    class Adviser:
        name = "someone"

    prompts = [Prompt("prior", "system", f"state {i}") for i in range(3)]
    answers = [Response("a", price_usd=0.25), Response("b"), Response("", error="HTTP 500")]
    with Journal(tmp_path / "main.sqlite") as main, ShardJournal(tmp_path / "shard.sqlite") as shard:
        keys = main.keys(Adviser(), prompts)
        shard.put(zip(keys, prompts, answers, strict=True), Adviser())
        for _ in range(2):
            merge(rows_of(shard), main)
        assert len(main) == 2 and len(main.failures()) == 1 and spent(main) == (3, 0.25)
        assert main.get(keys[0]) == answers[0] and main.get(keys[2]) is None
        assert [row[0] for row in rows_of(main, keys[:1])["answer"]] == keys[:1]
        with pytest.raises(Exception, match="rows of a shard"):
            merge({"prefix": [], "answer": [("short",)], "failure": []}, main)


def test_leases_never_lend_more_than_there_is_and_take_back_what_was_not_used():
    leases = Leases((10.0, 1.0))
    first = leases.take((8.0, 0.4))
    assert first == (8.0, 0.4) and leases.take((1.0, 0.1)) == (1.0, 0.1)
    leases.give_back(first, (3.0, 0.1))
    leases.give_back((1.0, 0.1), (1.0, 0.1))
    assert leases.take((20.0, 0.2)) == (6.0, 0.2)
    got = []
    waiting = threading.Thread(target=lambda: got.append(leases.take((4.0, 0.1))))
    waiting.start()
    leases.give_back((6.0, 0.2), (2.0, 0.2))
    waiting.join()
    assert got == [(4.0, 0.1)]
    leases.give_back(got[0], got[0])
    assert leases.take((1.0, 0.1)) is None  # no request is left
    assert Leases().take((5.0, 2.0)) == (5.0, 2.0)


def test_a_shard_has_sixty_four_states_or_more_whatever_the_settings_say(job):
    class Round:
        packed, llm = np.zeros((200, 3), np.uint8), object()

        class config:
            ask = AskConfig(shard=5)

    assert [len(shard) for shard in cut(Round)] == [64, 64, 64, 8]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_seeds_learn_from_one_version_without_a_question_and_read_it_once(job, server, tmp_path):
    ref = str(tasks.advise_states(job))
    asked, table = sum(server.seen.values()), shared_advice(ref)
    for seed in range(5):
        config = load_config(
            **{"advice.dataset": ref, "gate.enabled": True, "train.steps": 30, "train.seed": seed,
               "env.observation": "symbolic", "model.size": "tiny", "train.batch_size": 32, "train.sequence_length": 8}
        )  # fmt: skip
        train(config, tmp_path / f"seed-{seed}")
        assert json.loads((tmp_path / f"seed-{seed}" / "config.json").read_text())["advice"] == ref
        assert shared_advice(ref) is table
    assert asked == STATES == sum(server.seen.values())
