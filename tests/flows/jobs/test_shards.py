"""Shards on threads and on a Dask cluster: the same rows, nothing asked twice, limits over all of them together."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest

from flows.config import AdviceJob
from flows.jobs.advise import advise_states
from flows.jobs.shards import LEAST
from lore.config import load_config
from lore.training.loop import train
from lore_datasets.advice import shared_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError, LimitReached, ServiceError
from lore_datasets.store.store import Store
from lore_datasets.testing import small_states
from pipeline.config import AdviseConfig, AskConfig, SelectConfig
from pipeline.llm import backend_from
from pipeline.llm.journal.journal import Journal
from pipeline.rounds.round import Round
from tests.llm_server import running

STATES = 150


@pytest.fixture
def server():
    with running() as made:
        yield made


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
        rows_only=True,
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
    one = advise_states(replace(job, parallel=1))
    several = advise_states(replace(job, dataset="other", parallel=3, journal=str(tmp_path / "other.sqlite")))
    assert Store().manifest(one).counts["rows"] == STATES and same_rows(one, several)
    assert set(server.questions.values()) == {2}


def test_the_limit_on_requests_holds_over_all_threads_together(job, server):
    with pytest.raises(LimitReached, match="partial: the limit"):
        advise_states(replace(job, parallel=3, ask=replace(job.ask, max_requests=100)))
    assert sum(server.questions.values()) == 100
    ref = advise_states(job)
    assert Store().manifest(ref).counts["rows"] == STATES
    assert set(server.questions.values()) == {1}


def test_an_error_of_one_shard_ends_the_others_with_what_they_had_in_flight_kept(job, server, own_datasets):
    server.mode = lambda question, number: "gone" if number > 70 else "ok"
    with pytest.raises(ServiceError, match="5 questions in a row failed"):
        advise_states(replace(job, parallel=2, ask=replace(job.ask, timeout_s=1.0)))
    server.mode = "ok"
    before = server.questions.copy()
    with Journal(own_datasets / "journal.sqlite") as journal:
        assert len(journal) == 70
    assert Store().manifest(advise_states(job)).counts["rows"] == STATES
    assert sum((server.questions - before).values()) == STATES - 70


def test_workers_answer_for_advisers_that_compute_and_the_rows_are_the_same(job, workers):
    rules = replace(job, ask=AskConfig(), dataset="here", advise=AdviseConfig())
    here = advise_states(rules)
    there = advise_states(
        replace(rules, dataset="there", dask=workers.scheduler.address, journal=str(Store().beside / "other.sqlite"))
    )
    assert same_rows(here, there) and Store().manifest(there).cost["asked_now"] > STATES


def test_a_worker_killed_while_it_answers_loses_nothing(job, started_cluster, tmp_path, monkeypatch):
    """Its chunk is begun anew on the other worker; the answers of the others are in the journal."""
    (tmp_path / "slow_adviser.py").write_text(SLOW)
    monkeypatch.chdir(tmp_path)
    ask = AskConfig(backend="slow_adviser:Slow", retries=0)
    with started_cluster(2) as client:
        pids = list(client.run(os.getpid).values())
        killer = threading.Timer(1.0, os.kill, (pids[0], signal.SIGKILL))
        killer.start()
        ref = advise_states(replace(job, ask=ask, dask=client.scheduler.address))
        killer.join()
        assert pids[0] not in client.run(os.getpid).values()
    assert Store().manifest(ref).counts["rows"] == STATES and Store().manifest(ref).cost["asked_now"] == STATES


SLOW = """
import time
from pipeline.llm.base import Response

class Slow:
    name, chunk = "slow", 8
    def complete(self, prompts):
        time.sleep(0.2)
        return [Response('{"ranked": ["explore"], "confidence": 0.5}', self.name) for _ in prompts]
"""


def test_a_service_is_asked_by_this_process_alone_whatever_the_cluster(job, server):
    ref = advise_states(replace(job, dask="tcp://127.0.0.1:9"))
    assert Store().manifest(ref).counts["rows"] == STATES == sum(server.questions.values())


def test_every_socket_of_a_local_cluster_listens_on_loopback(workers):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 3 and set(listening) <= {"127.0.0.1", "::1"}


def test_an_address_where_no_scheduler_is_ends_in_a_named_error(job, server, monkeypatch):
    monkeypatch.setattr("flows.cluster.cluster._SECONDS", 0.5)
    with pytest.raises(ServiceError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        advise_states(replace(job, ask=AskConfig(), dask="tcp://127.0.0.1:9"))
    with pytest.raises(ConfigError, match="dask"):
        replace(job, dask="somewhere")


def test_a_shard_has_sixty_four_states_or_more_whatever_the_settings_say():
    class Fake:
        packed, llm = np.zeros((200, 3), np.uint8), backend_from(AskConfig())

        class config:
            ask = AskConfig(shard=5)

    assert [len(shard) for shard in Round.shards(Fake, LEAST)] == [64, 64, 64, 8]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_seeds_learn_from_one_version_without_a_question_and_read_it_once(job, server, tmp_path):
    ref = str(advise_states(job))
    asked, table = sum(server.questions.values()), shared_advice(ref)
    for seed in range(5):
        config = load_config(
            **{"advice.dataset": ref, "gate.enabled": True, "train.steps": 30, "train.seed": seed,
               "env.observation": "symbolic", "model.size": "tiny", "train.batch_size": 32, "train.sequence_length": 8}
        )  # fmt: skip
        train(config, tmp_path / f"seed-{seed}")
        assert json.loads((tmp_path / f"seed-{seed}" / "config.json").read_text())["advice"] == ref
        assert shared_advice(ref) is table
    assert asked == STATES == sum(server.questions.values())
