"""The flow ``advice-batch`` under ``kill -9``: a kill repeats what was in flight, with the same key."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flows.jobs.child_process import stop
from flows.prefect_flows.runtime import SETTINGS, free_port, start_server
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store
from lore_datasets.testing import small_states
from pipeline.llm.journal.journal import Journal

STATES, IN_FLIGHT, KILLS = 150, 4, 10


@pytest.fixture
def model():
    """Port of a server that takes 50 ms an answer and answers a request that it knows from memory."""
    words = [sys.executable, str(Path(__file__).parents[2].joinpath("llm_server.py")), "0.05"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def prefect_environment(tmp_path):
    """What a flow needs in its environment to use one server for all of this test's runs."""
    home, port = tmp_path / "prefect", free_port()
    mine = {**SETTINGS, "PREFECT_HOME": str(home), "PREFECT_SERVER_API_PORT": str(port)}
    url, process = start_server(home, "127.0.0.1", port, mine, pages=False)
    yield {**mine, "PREFECT_API_URL": url}
    stop(process)


def counts(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/counts")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def written(folder):
    """The questions with an answer in the journal."""
    with Journal(folder / "journal.sqlite") as journal:
        return {row[0] for row in journal._query("SELECT user FROM answer")}


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_a_flow_killed_at_ten_random_moments_repeats_no_more_than_was_in_flight(
    model, prefect_environment, own_datasets, tmp_path
):
    """At most four questions go out a second time per kill; the server, which keeps its answers by key, works once."""
    rng, ref = np.random.default_rng(0), small_states(own_datasets, get_environment("crafter"), STATES)
    words = [sys.executable, "-m", "flows", "advise", "--prefect", "--states", str(ref), "--dataset", "talk",
             "--select.budget", str(STATES), "--select.novelty", "0", "--ask.backend", "openai", "--ask.model", "m",
             "--ask.base-url", f"http://127.0.0.1:{model}/v1", "--ask.shard", "64", "--ask.retries", "0",
             "--ask.concurrency", str(IN_FLIGHT), "--advise.plan-share", "0", "--advise.skill-questions", "0",
             "--rows-only"]  # fmt: skip
    run = {"env": {**os.environ, **prefect_environment}, "cwd": tmp_path}
    in_flight = []
    for more in rng.integers(1, STATES // KILLS - 1, KILLS):
        while counts(model)["busy"]:  # what the killed run has left there
            time.sleep(0.01)
        before = counts(model)
        moment = sum(before["worked"].values()) + more
        with (tmp_path / "log.txt").open("ab") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, **run)
        while sum(counts(model)["worked"].values()) < moment and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)
        process.kill()
        sent = {
            question for question, n in counts(model)["questions"].items() if n > before["questions"].get(question, 0)
        }
        in_flight.append(len(sent - written(own_datasets)))
        assert process.wait() == -signal.SIGKILL
    subprocess.run(words, check=True, capture_output=True, **run)

    found = counts(model)
    more = sum(found["questions"].values()) - STATES
    print(f"\nin flight at each kill: {in_flight}; seen twice or more: {more} of {STATES}")
    assert sum(in_flight) > 0 and max(in_flight) <= IN_FLIGHT
    assert sum(times > 1 for times in found["questions"].values()) <= sum(in_flight)
    assert Counter(found["worked"].values()) == {1: STATES}
    assert Store().manifest("talk").counts["rows"] == STATES
    with sqlite3.connect(tmp_path / "prefect" / "prefect.db") as database:
        states = Counter(row[0] for row in database.execute("SELECT state_type FROM flow_run"))
    assert states == {"RUNNING": KILLS, "COMPLETED": 1}
