"""Training in every arm of a study with a program as its advice, and with its skills without preference as control."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flows.config import AblateJob
from flows.jobs.ablation_arms import cells
from lore.config import load_config
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice

CRAFTER = get_environment("crafter")
SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 16, "sequence_length": 8, "train_ratio": 8.0, "horizon": 3,
    "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 500, "device": "cpu", "env.length": 50,
    "train.save_interval_s": 3600.0,
}  # fmt: skip
ARMS = "A,B,B1,C,ABC,C+all,BC+kick,BC+kick+budget,ABC+kick"
JOB = AblateJob(
    arms=ARMS, advisers="mine,uniform", control_arms="B,C,ABC+kick", steps=60, seeds=(0,), config=load_config(**SMALL)
)


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> tuple[str, str]:
    """(folder of datasets, reference of a version with the rule book as its program and a few rows)."""
    root = tmp_path_factory.mktemp("advice") / "datasets"
    writer = Store(root).writer("mine", "advice", environment=CRAFTER, skills=CRAFTER.skills)
    writer.append("programs", json=[CRAFTER.rules.text], origin=["me"])
    writer.append("rows", **random_advice(CRAFTER, 20, np.random.default_rng(0), len(CRAFTER.skills)))
    return str(root), str(writer.commit("a program"))


@pytest.mark.parametrize("cell", cells(JOB), ids=lambda cell: cell.label)
def test_an_arm_learns_with_a_program_as_its_advice(cell, version, tmp_path, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", version[0])
    done = train(cell.config(JOB, 0, version[1]), tmp_path, tensorboard=False)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert done["step"] == 60 and any("opt/loss" in row for row in rows)
    values = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert values and all(map(math.isfinite, values))
    spoken = [row["llm_adapter/coverage_program"] for row in rows if "llm_adapter/coverage_program" in row]
    if "B" in cell.arm:
        assert max(spoken) == (0.0 if cell.adviser == "uniform" else 1.0)
    if "kick" in cell.arm:
        assert max(row.get("kickstart/advised", 0.0) for row in rows) > 0.5
