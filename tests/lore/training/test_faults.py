"""What a run does when a batch is not finite, and when a game raises."""

import numpy as np
import pytest
import torch

from lore.config import load_config
from lore.training.run import Training
from lore_datasets.environments import get_environment
from lore_datasets.testing import small_advice

SMALL = {
    "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0, "horizon": 5,
    "learning_rate": 1e-3, "warmup": 5, "log_interval": 20, "threads": 1, "replay_capacity": 2000, "env.length": 60,
    "steps": 100,
}  # fmt: skip
PATHS = {
    "gate.enabled": True, "gate.kickstart": 1.0, "synthetic.enabled": True, "options.enabled": True,
    "synthetic.warmup_updates": 2, "synthetic.refresh_updates": 1, "synthetic.execution_prob": 1.0,
}  # fmt: skip


@pytest.fixture
def trained(tmp_path, own_datasets, monkeypatch) -> Training:
    """A run with all paths on, some updates old."""
    advice = str(small_advice(own_datasets, get_environment("crafter"), n=40))
    run = Training(load_config(**SMALL, **PATHS, dataset=advice), tmp_path / "run")
    run.steps = run.envs.reset()
    run.fill_slots()
    monkeypatch.setattr("lore.synthetic.calibration.LEAST", 10**9)
    run.learner.synthetic.calibration.limits.fill_(1e9)  # a world model so young is trusted with nothing otherwise
    plans = len(run.learner.synthetic.lengths)
    for step in range(60):
        actions, records = run.policy.act(run.steps)
        records[0]["plan"] = np.int32(step % plans)  # every state has one
        run.replay.add(0, records[0])
        run.steps = run.envs.step(actions)
    for _ in range(8):
        run.learner.update(run.replay.sample(run.config.train.sequences))
    return run


@pytest.mark.parametrize("poison", ["reward", "deter"])
def test_a_batch_that_is_not_finite_changes_nothing_that_an_update_moves(trained, poison):
    learner, records = trained.learner, trained.replay.sample(trained.config.train.sequences)
    assert learner.synthetic.buffer.size > 0 and learner.synthetic.ready(learner.updates)
    before = {k: v.clone() for k, v in trained.policy.agent.state_dict().items()}
    measured = learner.synthetic.state_dict()
    learner.update(records | {poison: np.full_like(records[poison], np.nan)})
    assert learner.optimiser.bad == 1
    changed = [k for k, v in trained.policy.agent.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == []
    after = learner.synthetic.state_dict()
    assert all(np.isfinite(value).all() for value in after.values())
    if poison == "deter":  # the batch itself is unsound; a reward alone leaves states that are as good as any
        assert (after["error"], after["open_loop"]) == (measured["error"], measured["open_loop"])
    assert learner.synthetic.ready(learner.updates), "path A goes on"
    assert all(torch.isfinite(x.float()).all() for x in learner.synthetic.buffer.tensors().values())
    learner.update(records)
    assert learner.optimiser.bad == 0 and learner.synthetic.share > 0


def test_a_run_that_saved_a_poisoned_path_is_healed_when_it_goes_on(trained):
    path = trained.learner.synthetic
    path.load(path.buffer.tensors(), path.state_dict() | {"error": float("nan"), "best_error": 2.0})
    records = trained.replay.sample(trained.config.train.sequences)
    trained.learner.update(records)
    assert path.ready(trained.learner.updates) and path.share > 0
