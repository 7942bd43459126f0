"""Every arm pays for each step of the game it plays, those that test plans for real included."""

import numpy as np
import pytest

from lore.config import load_config
from lore.options import controller
from lore.training import checkpoint
from lore.training.folder import CHECKPOINT
from lore.training.loop import train
from lore.training.policy import Policy
from lore.training.records import read_jsonl
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store

ENV = get_environment("crafter")
A, K = len(ENV.vocab.actions), len(ENV.skills)
FRAMES = 90
SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 2.0, "horizon": 3,
    "threads": 1, "replay_capacity": 500, "env.length": 25, "env.area": (16, 16), "steps": FRAMES,
    "log_interval": 10, "train.save_interval_s": 3600.0,
}  # fmt: skip


@pytest.fixture
def advice(own_datasets, tmp_path) -> str:
    """A version with a row, and a plan of six steps, for the first state that a run with seed 0 sees."""
    first = Policy(load_config(**SMALL), is_training=True).make_envs().reset()[0].state[None]
    plans = np.full((1, 1, 12), -1, np.int16)
    plans[0, 0, :6] = [1, 2, 1, 2, 1, 2]
    writer = Store(own_datasets).writer("said", "advice", environment=ENV, skills=ENV.skills)
    writer.append(
        "rows", state=first, logits=np.zeros((1, A + K), np.float32), mask=np.ones((1, A + K), np.uint8),
        confidence=np.ones(1, np.float32), plans=plans, plan_lengths=np.full((1, 1), 6, np.int16),
        plan_scores=np.ones((1, 1), np.float32), applicable=np.ones((1, K), np.uint8), reason=["because"],
    )  # fmt: skip
    return str(writer.commit("said"))


def played(folder) -> int:
    """Steps that the game itself counted: of all finished episodes and of the one under way."""
    _, meta = checkpoint.load(folder / CHECKPOINT)
    under_way = [step["info"]["length"] for step in meta["steps"] if not step["is_last"]]
    over = [step["info"]["length"] for step in meta["steps"] if step["is_last"]]
    return sum(row["length"] for row in read_jsonl(folder / "episodes.jsonl")) + sum(under_way) + sum(over)


@pytest.mark.parametrize("arm", ["none", "B", "A", "C", "ABC"])
def test_an_arm_plays_exactly_its_budget_and_plans_under_test_are_part_of_it(tmp_path, advice, arm, monkeypatch):
    monkeypatch.setattr(controller, "PLAN_TESTS", 1.0)
    monkeypatch.setattr(controller, "PLAN_SHARE", 1.0)
    paths = {
        "gate.enabled": "B" in arm, "synthetic.enabled": "A" in arm, "options.enabled": "C" in arm,
        "dataset": advice if arm != "none" else "",
    }  # fmt: skip
    summary = train(load_config(**SMALL, **paths), tmp_path / arm, tensorboard=False)
    assert summary["step"] == FRAMES == played(tmp_path / arm)
    tested = sum(row.get("synthetic/plans_executed", 0.0) for row in read_jsonl(tmp_path / arm / "metrics.jsonl"))
    assert (tested > 0) == ("A" in arm)
