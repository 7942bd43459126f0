"""A run goes on with another version of its advice dataset: old replay meets the new rows, and the run says when."""

from __future__ import annotations

import numpy as np
import pytest

from lore.advice.lookup import AdviceSource
from lore.config import Config, load_config
from lore.training import checkpoint
from lore.training.advice_versions import VERSIONS, is_same_dataset, record, versions
from lore.training.folder import CHECKPOINT, read_config
from lore.training.loop import train
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice, small_advice

CRAFTER = get_environment("crafter")
SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0, "horizon": 5,
    "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 2000, "env.length": 60, "device": "cpu",
    "train.save_interval_s": 3600.0, "gate.enabled": True, "synthetic.enabled": True, "kickstart": 1.0,
    "options.enabled": True, "synthetic.warmup_updates": 2,
}  # fmt: skip


def config(frames: int, advice: str, **more) -> Config:
    return load_config(**(SMALL | {"steps": frames, "advice.dataset": advice} | more))


def replayed(folder) -> tuple[dict, dict]:
    tensors, meta = checkpoint.load(folder / CHECKPOINT, has_replay=True)
    return {k.removeprefix("replay/0/"): v.numpy() for k, v in tensors.items() if k.startswith("replay/0/")}, meta


def advise_visited(store: Store, folder) -> str:
    """The next version: one new row for each of the first distinct states that the run has seen."""
    states = np.unique(replayed(folder)[0]["state"], axis=0)[:30]
    rows = random_advice(CRAFTER, len(states), np.random.default_rng(3)) | {"state": states}
    writer = store.writer("small", "advice", environment=CRAFTER, skills=CRAFTER.skills)
    writer.append("rows", **rows)
    return str(writer.commit("visited states"))


def test_newer_advice_applies_to_old_replay_and_the_run_records_since_when(tmp_path, own_datasets):
    first = str(small_advice(own_datasets, CRAFTER, n=40))
    run = tmp_path / "run"
    train(config(60, first), run, tensorboard=False)
    before, _ = replayed(run)
    assert (before["row"] == -1).all()  # no random row is a state of the game
    second = advise_visited(Store(), run)
    seen = len(before["row"])
    summary = train(config(100, second), run, tensorboard=False)
    assert summary["step"] == 100
    assert [(row["step"], row["advice"]) for row in versions(run)] == [(0, first), (60, second)]
    after, meta = replayed(run)
    source = AdviceSource(load_advice(second))
    last = after["is_last"][:seen]
    expected = np.where(last, -1, source.lookup_batch(after["state"][:seen]).row)
    assert (after["row"][:seen] == expected).all() and (expected >= 40).sum() >= 30
    assert after["advice"][:seen][expected >= 0].any(-1).mean() > 0.5
    assert meta["advice"] == second and str(read_config(run).advice.dataset) == second


def test_the_same_path_leads_back_to_an_earlier_version(tmp_path, own_datasets):
    first = str(small_advice(own_datasets, CRAFTER, n=40))
    run = tmp_path / "run"
    train(config(40, first), run, tensorboard=False)
    second = advise_visited(Store(), run)
    train(config(60, second), run, tensorboard=False)
    assert (replayed(run)[0]["row"] >= 40).any()
    train(config(80, first), run, tensorboard=False)
    assert (replayed(run)[0]["row"] == -1).all()
    assert [row["advice"] for row in versions(run)] == [first, second, first]


def test_another_dataset_is_still_refused(tmp_path, own_datasets):
    first = str(small_advice(own_datasets, CRAFTER, n=40))
    other = str(small_advice(own_datasets, CRAFTER, n=40, name="other"))
    train(config(20, first), tmp_path / "run", tensorboard=False)
    with pytest.raises(ConfigError, match=r"was started with another advice\.dataset"):
        train(config(40, other), tmp_path / "run", tensorboard=False)
    assert not is_same_dataset(first, other) and not is_same_dataset("", first) and not is_same_dataset("a.h5", first)


def test_rows_that_a_kill_undid_are_written_anew(tmp_path):
    assert record(tmp_path, 0, 0, "x@v1") and not record(tmp_path, 5, 2, "x@v1")
    assert record(tmp_path, 50, 9, "x@v2")
    assert record(tmp_path, 30, 5, "x@v3")  # resumed from an earlier checkpoint
    assert [(row["step"], row["advice"]) for row in versions(tmp_path)] == [(0, "x@v1"), (30, "x@v3")]
    assert [p.name for p in tmp_path.iterdir()] == [VERSIONS]
