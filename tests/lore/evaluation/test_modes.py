"""The three ways in which a final policy is played: as trained, alone, and with primitive actions only."""

import numpy as np
import pytest
import torch

from lore.config import load_config
from lore.evaluation.evaluate import evaluate, modes
from lore.training.loop import train
from lore.training.policy import load_policy
from lore_datasets.environments import get_environment
from lore_datasets.testing import small_advice

PATHS = {"gate": {"gate.enabled": True, "beta_max": 50.0, "delta_target": 50.0}, "options": {"options.enabled": True},
         "plans": {"synthetic.enabled": True}}  # fmt: skip


@pytest.fixture
def folder(request, tmp_path, own_datasets):
    """A run of 40 steps with the paths that the test names."""
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=20)) if request.param else ""
    on = {k: v for path in request.param for k, v in PATHS[path].items()}
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 4.0,
        "horizon": 3, "threads": 1, "replay_capacity": 500, "steps": 40, "dataset": ref, "device": "cpu",
        "train.save_interval_s": 3600.0, "env.length": 30, "advice.prior": "uniform" if ref else "stored",
    }  # fmt: skip
    train(load_config(**small, **on), tmp_path, tensorboard=False)
    return tmp_path


def played(folder, **how) -> tuple[float, float]:
    """(share of steps that advice took, share with a skill in charge) when slots are called whenever they may be."""
    policy = load_policy(folder, 1, **how)
    envs, rows = policy.make_envs(), []
    if policy.slots is not None:
        with torch.no_grad():
            policy.agent.actor_critic.actor.out.bias[policy.agent.num_actions :] = 20.0
    steps = envs.reset()
    for _ in range(60):
        actions, records = policy.act(steps)
        rows.append((bool(records[0].get("advised", False)), records[0].get("skill", -1) >= 0))
        steps = envs.step(actions)
    return tuple(np.array(rows).mean(0))


@pytest.mark.parametrize("folder", [("options", "plans")], indirect=True, ids=["A+C"])
def test_a_final_policy_has_its_skills_own_limits_and_plays_no_plans_under_test(folder):
    policy = load_policy(folder, 1)
    assert policy.agent.heads.limits.tolist() == [skill.max_steps for skill in policy.skills]
    assert len(set(policy.agent.heads.limits.tolist())) > 1
    assert policy.plans is not None and policy.controller.plans is None


@pytest.mark.parametrize("folder", [("gate", "options")], indirect=True, ids=["B+C"])
def test_each_mode_takes_one_support_away(folder):
    (trained, with_skills), (alone, own_skills), (bare, none) = (
        played(folder), played(folder, is_advised=False), played(folder, is_advised=False, has_skills=False)
    )  # fmt: skip
    assert trained > 0 == alone == bare
    assert with_skills > 0.5 and own_skills > 0.5 and none == 0


@pytest.mark.parametrize(
    ("folder", "played"),
    [
        ((), {"as trained"}),
        (("gate",), {"as trained", "agent alone"}),
        (("options",), {"as trained", "primitives only"}),
    ],
    indirect=["folder"],
    ids=["none", "B", "C"],
)
def test_a_mode_of_a_path_that_is_off_is_the_one_before_it_and_not_played_again(folder, played):
    seen = []
    found = evaluate(folder, 1, on_progress=lambda mode, count: seen.append(mode))["final_policy"]
    assert list(found) == ["as_trained", "agent_alone", "primitives_only"] and set(seen) == played
    assert modes(load_policy(folder, 1).config) == len(played)
    if "agent alone" not in played:
        assert found["agent_alone"] == found["as_trained"]
    if "primitives only" not in played:
        assert found["primitives_only"] == found["agent_alone"]
