"""Path D: what advised goals pay in imagination, how often, and until when."""

import pytest
import torch

from lore.config import load_config
from lore.dreamer.actor_critic import ActorCritic
from lore.dreamer.imagination import imagine, judge
from lore.gate.config import GateConfig
from lore.gate.gate import Gate
from lore.gate.goals import advised_goals, goal_weight
from lore.options.heads import Charges, OptionPolicy
from lore.training.loop import train
from lore.training.records import read_jsonl
from lore_datasets.environments import get_environment
from lore_datasets.errors import ConfigError
from lore_datasets.testing import small_advice
from tests.lore.options.chain import GAMMA, GOAL, SIZE, STATES, A, Chain, Known, actor, at, noise


def test_a_goal_is_worth_its_probability_times_the_confidence():
    advice = torch.tensor([[[0.5, 0.0, 0.2, 0.3], [0.0] * 4]], dtype=torch.float16)
    found = advised_goals({"advice": advice, "confidence": torch.tensor([[0.5, 1.0]])}, 2)
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.15], [0.0, 0.0]]), atol=1e-4, rtol=0.0)


def test_the_weight_falls_to_nothing_and_with_the_trust():
    gate, weights = Gate(GateConfig(goal_bonus=2.0, goal_bonus_steps=1000)), []
    for gate.env_steps in (0, 250, 1000, 5000):
        weights.append(goal_weight(gate))
    assert weights == [2.0, 1.5, 0.0, 0.0]
    gate.env_steps, gate.trust.value = 0, 0.01
    assert goal_weight(gate) == pytest.approx(0.02)
    assert goal_weight(Gate(GateConfig())) == 0.0


def test_each_goal_pays_once_per_trajectory_and_nothing_where_it_is_reached_already():
    # From 0 the skill walks to its goal in five steps, the actor goes back two cells twice, and it walks there again.
    policy, steps = OptionPolicy(actor, Known(None), torch.tensor([0])), 12
    starts, goals = at([0, GOAL, 0]), torch.tensor([[0.5], [0.5], [0.0]])
    imagined = imagine(Chain(), policy, starts, noise(3, steps, torch.Generator().manual_seed(0)), Charges.none(goals))
    state = imagined.features[..., :STATES].argmax(-1)
    assert (state[0] == GOAL).nonzero()[:, 0].tolist() == [5, 11]
    paid = imagined.bonus[:, 1:]  # nobody reads what is paid in the first state
    assert paid[0].nonzero()[:, 0].tolist() == [4] and paid[0].sum() == 0.5
    assert (state[1, 1:] == GOAL).any() and (paid[1:] == 0).all()
    critic = ActorCritic(STATES, A + 1, SIZE, skills=1, generator=torch.Generator().manual_seed(0))
    with_goals, without = judge(Chain(), critic, imagined), judge(Chain(), critic, imagined._replace(bonus=None))
    gain = (with_goals.returns - without.returns)[0]
    torch.testing.assert_close(gain[:5], torch.tensor([0.5 * (0.95 * GAMMA) ** i for i in range(4, -1, -1)]))
    assert (gain[5:].abs() < 1e-6).all() and torch.equal(with_goals.reward, without.reward)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"gate.goal_bonus": 0.5, "gate.enabled": True}, "path C is off"),
        ({"gate.goal_bonus": 0.5, "options.enabled": True}, "path B is off"),
        ({"gate.goal_bonus": -1.0, "gate.enabled": True, "options.enabled": True}, "gate.goal_bonus"),
        ({"gate.goal_bonus_steps": 0, "gate.enabled": True, "options.enabled": True}, "goal_bonus_steps"),
    ],
)
def test_goals_that_nobody_advises_or_ends_and_bad_schedules_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word) as caught:
        load_config(dataset="said", **settings)
    assert caught.value.hint


def test_off_and_after_its_schedule_a_run_is_the_one_without_goals_to_the_bit(tmp_path, own_datasets, digest):
    ref = str(small_advice(own_datasets, get_environment("crafter"), n=40))
    small = {
        "size": "tiny", "observation": "symbolic", "batch_size": 32, "sequence_length": 8, "train_ratio": 16.0,
        "horizon": 5, "warmup": 5, "threads": 1, "replay_capacity": 500, "steps": 60, "dataset": ref,
        "log_interval": 20, "device": "cpu", "save_interval_s": 3600.0, "gate.enabled": True, "env.length": 50,
        "advice.prior": "uniform", "options.enabled": True, "options.max_options": 0, "gate.kickstart": 1.0,
    }  # fmt: skip
    found = []
    for number, goals in enumerate([{}, {"goal_bonus": 5.0, "goal_bonus_steps": 1}, {"goal_bonus": 5.0}]):
        train(load_config(**(small | goals)), tmp_path / str(number), tensorboard=False)
        found.append(digest(tmp_path / str(number)))
    assert found[0] == found[1] != found[2]
    rows = list(read_jsonl(tmp_path / "2" / "metrics.jsonl"))
    assert any("train/bonus" in row for row in rows)
