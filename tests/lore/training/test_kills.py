"""A run that is killed at twenty random moments and resumed each time ends as if nothing had happened."""

import multiprocessing
import time

import numpy as np
import pytest

from lore.config import Config, load_config
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore_datasets.environments import get_environment
from lore_datasets.exchange.hdf5 import export_hdf5
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice

KILLS, FRAMES = 20, 400


def config(advice: str, save_interval_s: float) -> Config:
    """All three paths on, an update every eight steps, rows of metrics every five."""
    return load_config(
        **{
            "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
            "horizon": 5, "learning_rate": 1e-3, "warmup": 5, "log_interval": 5, "threads": 1, "replay_capacity": 300,
            "env.length": 40, "env.area": (24, 24), "save_interval_s": save_interval_s, "steps": FRAMES,
            "dataset": advice, "gate.enabled": True, "synthetic.enabled": True, "options.enabled": True,
            "synthetic.warmup_updates": 2, "hold": 4, "device": "cpu",
        }
    )  # fmt: skip


def step_of(folder) -> int:
    """Environment steps of the newest row of metrics."""
    rows = read_jsonl(folder / "metrics.jsonl")
    return rows[-1]["step"] if rows else 0


def without_speed(folder) -> list[dict]:
    """Rows of metrics but for their one entry that is a time."""
    return [{k: v for k, v in r.items() if k != "fps/policy"} for r in read_jsonl(folder / "metrics.jsonl")]


def kill_at(child, folder, step: int, delay: float) -> int:
    """SIGKILL the child ``delay`` seconds after it reached ``step``; its exit code."""
    began = time.monotonic()
    while child.is_alive() and step_of(folder) < step:
        assert time.monotonic() - began < 120, "the run does not move"
        time.sleep(0.004)
    time.sleep(delay)
    child.kill()
    child.join()
    return child.exitcode


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_random_kills_leave_no_trace_in_what_the_run_ends_as(tmp_path, digest):
    store = Store(tmp_path / "store")
    advice = tmp_path / "advice.h5"
    export_hdf5(store, small_advice(tmp_path / "store", get_environment("crafter"), n=40), advice)
    train(config(str(advice), 3600.0), tmp_path / "straight", tensorboard=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lore.training.loop", "lore.envs.crafter.adapter", "lore.envs.crafter.world"])
    rng, folder, codes = np.random.default_rng(0), tmp_path / "killed", []
    at = np.sort(rng.integers(1, FRAMES - 40, KILLS))
    at[rng.random(KILLS) < 0.25] = 0  # these die at any moment of their start
    for step in at.tolist():
        child = context.Process(
            target=train, args=(config(str(advice), 0.1), folder), kwargs={"tensorboard": False}, daemon=True
        )
        child.start()
        try:
            codes.append(kill_at(child, folder, step, rng.uniform(0.0, 0.05 if step else 1.0)))
        finally:
            child.kill()
    assert codes == [-9] * KILLS
    assert step_of(folder) < FRAMES
    train(config(str(advice), 0.1), folder, tensorboard=False)
    assert digest(folder) == digest(tmp_path / "straight")
    assert without_speed(folder) == without_speed(tmp_path / "straight")
    assert read_jsonl(folder / "episodes.jsonl") == read_jsonl(tmp_path / "straight" / "episodes.jsonl")
    assert len(read_jsonl(folder / "episodes.jsonl")) >= 5
    assert list(folder.glob(".*.tmp")) == []
