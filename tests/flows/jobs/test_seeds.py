"""Several runs at once, here and on a Dask cluster: which runs, which errors, what a killed worker costs, GPUs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from flows.cli import main as cli
from flows.cli.train import SeedFlags
from flows.cluster.cluster import Place, cluster, place
from flows.cluster.cluster import _resources as resources_of
from flows.config import RefreshJob, SeedsJob, TrainJob
from flows.jobs.seeds import run_all, train_runs
from flows.jobs.training_process import last_row, train_in_process
from lore.config import load_config
from lore.main import parse
from lore.training import checkpoint
from lore.training.folder import CHECKPOINT
from lore_datasets.errors import ConfigError, LoreError, ServiceError

SMALL = [
    "--size", "tiny", "--observation", "symbolic", "--batch_size", "32", "--sequence_length", "8", "--horizon", "5",
    "--train_ratio", "4.0", "--warmup", "5", "--log_interval", "5", "--threads", "1", "--replay_capacity", "2000",
    "--env.length", "40", "--device", "cpu", "--train.save_interval_s", "0.1",
]  # fmt: skip


def flags(*words: str) -> SeedFlags:
    found = parse([*SMALL, *words], kind=SeedFlags)
    assert isinstance(found, SeedFlags)
    return found


def test_seeds_are_runs_of_their_own_that_differ_in_nothing_else():
    several = flags("--folder", "runs/x", "--seeds", "3", "0", "7", "--dask", "local", "--steps", "50").jobs()
    assert [job.folder for job in several] == ["runs/x/seed-3", "runs/x/seed-0", "runs/x/seed-7"]
    one = flags("--folder", "runs/x", "--seed", "3", "--steps", "50", "--dask", "tcp://127.0.0.1:1").jobs()
    assert [job.folder for job in one] == ["runs/x"] and one[0].config == several[0].config
    assert [job.config.train.seed for job in several] == [3, 0, 7]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--dask", "somewhere"), "dask = somewhere"),
        (("--seeds", "1", "1"), "seeds = 1 1"),
        (("--seeds", "-1"), "seeds = -1"),
        (("--workers", "2"), "--workers is for several runs"),
        (("--seeds", "0", "--workers", "-1"), "workers = -1"),
        (("--seeds", "0", "1", "--gate.enabled", "--advice.dataset", "talk@v1"), "names no version exactly"),
        (("--seeds", "0", "--gate.enabled", "--advice.dataset", "talk@v1#0123456789ab"), "talk"),
        (("--dask", "tcp://127.0.0.1:9"), r"no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_trained_is_named_before_anything_starts(words, error, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flows.cluster.cluster._SECONDS", 0.5)
    assert cli.main(["train", *SMALL, "--folder", str(tmp_path / "run"), *words]) not in (0, 1)
    assert error in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_the_other_jobs_that_may_run_on_a_cluster_check_its_address():
    for kind in (RefreshJob, SeedsJob):
        assert kind(dask="tcp://scheduler:8786").dask and kind(dask="local").dask
        with pytest.raises(ConfigError, match="dask"):
            kind(dask="somewhere")


def test_a_run_that_fails_stops_no_other_and_its_error_comes_at_the_end(tmp_path):
    done = []

    def work(folder, error=None):
        def call():
            if error:
                raise LoreError(error)
            done.append(folder)
            return folder

        return call

    jobs = {str(tmp_path / "a"): work("a", "no luck"), str(tmp_path / "b" / "c"): work("b")}
    with place("") as where, pytest.raises(LoreError, match="no luck"):
        run_all(jobs, dict.fromkeys(jobs, 1), where, 1)
    assert done == ["b"]
    jobs = {"x": work("x", "stopped by hand"), "y": work("y")}
    with place("") as where, pytest.raises(LoreError, match="stopped"):
        run_all(jobs, dict.fromkeys(jobs, 1), where, 1)
    assert done == ["b"]  # whoever was told to end starts no other one


def test_a_run_that_wants_a_gpu_goes_to_the_worker_that_has_one_or_is_refused(started_cluster):
    with cluster("local", 2, gpus=1) as client:
        offered = [each["resources"] for each in client.scheduler_info(n_workers=-1)["workers"].values()]
        assert sorted(map(str, offered)) == ["{'GPU': 1}", "{}"]
        for device in ("cuda", "auto"):
            where = Place(client, resources_of(client, "local", device))
            assert where.resources == {"GPU": 1} and where.threads == 2
            with ThreadPoolExecutor(3) as pool:
                seen = list(pool.map(lambda _, where=where: where.run("r", os.getpid), range(3)))
            assert len(set(seen)) == 1 and where.run("r", os.getenv, "CUDA_VISIBLE_DEVICES") == "0"
        assert resources_of(client, "local", "cpu") == {}
    with started_cluster(1) as client:
        address = client.scheduler.address
        with pytest.raises(ServiceError, match=r"no worker of the Dask cluster .* offers the resource GPU") as refused:
            train_runs([TrainJob("x", load_config(device="cuda"))], "", dask=address)
        assert "--resources GPU=1" in refused.value.hint and not Path("x").exists()
        with place(address, device="auto") as where:
            assert where.resources == {} and where.run("r", os.getpid) != os.getpid()


def test_workers_of_this_machine_run_nothing_of_a_user_without_their_certificate():
    """Every user of the machine reaches the port; without TLS, whoever connected ran code in a worker."""
    from distributed.comm import connect

    async def knock(door: str) -> None:
        (await connect(door, timeout=3)).abort()

    with cluster("local", 1) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:") and client.submit(os.getpid).result() != os.getpid()
        [worker] = client.scheduler_info(n_workers=-1)["workers"]
        for port in (address, worker):
            for stranger in (port, port.replace("tls://", "tcp://")):
                with pytest.raises((OSError, TypeError)):  # no certificate at all, or a connection that is cut
                    asyncio.run(asyncio.wait_for(knock(stranger), 20))


def step_of(folder: Path) -> int:
    return int((last_row(folder / "progress.jsonl") or {}).get("step", 0))


def worker_of(folder: Path, workers: list[int]) -> int:
    """The process of the worker that trains in a folder."""
    for worker in workers:
        for child in psutil.Process(worker).children(recursive=True):
            if str(folder) in child.cmdline():
                return worker
    raise AssertionError("nobody trains")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_seeds_on_a_cluster_end_as_if_no_worker_had_been_killed(tmp_path, own_datasets, digest, started_cluster):
    """The run of the killed worker goes on elsewhere from its checkpoint; the other one does not notice."""
    jobs = flags("--folder", str(tmp_path / "runs"), "--seeds", "0", "1", "--steps", "300").jobs()
    first, seen = tmp_path / "runs" / "seed-0", []

    def kill():
        while not ended.is_set() and (step_of(first) < 80 or not (first / CHECKPOINT).is_file()):
            time.sleep(0.02)
        os.kill(worker_of(first, list(client.run(os.getpid).values())), signal.SIGKILL)
        time.sleep(1.0)  # the trainer ends with its worker
        kept = int(checkpoint.load(first / CHECKPOINT)[1]["frames"])
        while not ended.is_set():
            seen.append((kept, step_of(first)))
            time.sleep(0.05)

    ended = threading.Event()
    with started_cluster(2) as client:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            found = train_runs(jobs, str(own_datasets), dask=client.scheduler.address)
        finally:
            ended.set()
            killer.join()
    assert [row["step"] for row in found] == [300, 300]
    assert 0 < seen[0][0] < 300 and min(step for _, step in seen) >= seen[0][0]
    train_in_process(TrainJob(str(tmp_path / "straight"), jobs[0].config), str(own_datasets))
    assert digest(first) == digest(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_trains_seeds_on_workers_of_its_own_and_goes_on_where_they_were(tmp_path, capsys):
    words = [
        "train",
        *SMALL,
        "--folder",
        str(tmp_path / "runs"),
        "--seeds",
        "4",
        "9",
        "--dask",
        "local",
        "--workers",
        "2",
    ]
    for frames in ("120", "200"):
        assert cli.main([*words, "--steps", frames]) == 0
        said = capsys.readouterr().out
        assert said.count(f": {frames} steps") == 2 and "lore report" in said
    rows = [json.loads(line)["step"] for line in (tmp_path / "runs/seed-9/progress.jsonl").read_text().splitlines()]
    assert rows == sorted(rows) and rows[-1] == 200


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_lets_the_runs_on_the_workers_save(tmp_path):
    words = [*SMALL[:-1], "3600", "--folder", str(tmp_path), "--seeds", "5", "--dask", "local", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "train", *words, "--steps", "100000"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    run, deadline = tmp_path / "seed-5", time.monotonic() + 400
    while step_of(run) < 30 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    reached = step_of(run)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "go on with `lore train" in said and "Traceback" not in said
    assert checkpoint.load(run / CHECKPOINT)[1]["frames"] >= reached >= 30
