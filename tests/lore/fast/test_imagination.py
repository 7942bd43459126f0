"""Imagination shared between threads: trajectories, losses and gradients of one over all rows, whatever the number of
threads."""

import copy

import pytest
import torch

from lore.dreamer.actor_critic import ActorCritic, actor_critic_losses, trajectory_metrics
from lore.dreamer.imagination import Imagination
from lore.dreamer.types import Latent, Noise, Starts, Trajectories
from lore.dreamer.world_model import WorldModel
from lore.fast import parallel
from lore.fast.imagination import SharedImagination
from lore.sizes import Size
from lore_datasets.environments import get_environment
from tests.lore.fast.forms import seeded

SMALL = Size(deter=64, hidden=16, classes=4, depth=4, units=32, stoch=8)
ROWS, HORIZON = 13, 4
WEIGHT = torch.linspace(0.5, 1.0, ROWS)


def make() -> tuple[WorldModel, ActorCritic]:
    model = WorldModel("symbolic", get_environment("crafter"), SMALL, generator=seeded())
    agent = ActorCritic(model.features, 17, SMALL, generator=seeded(1))
    for head in (model.reward, agent.actor, agent.critic, agent.slow_critic):
        torch.nn.init.normal_(head.out.weight, std=0.1, generator=seeded(2))
    return model, agent


def starts() -> Latent:
    stoch = torch.nn.functional.one_hot(torch.randint(4, (ROWS, 8), generator=seeded(3)), 4).float()
    return Latent(torch.rand(ROWS, 64, generator=seeded(4)), stoch)


def begun(seed: int = 5) -> Starts:
    generator = seeded(seed)
    policy = torch.rand(HORIZON + 1, 1, ROWS, generator=generator)
    return Starts(starts(), Noise(policy, torch.rand(HORIZON, ROWS, 8, generator=generator)), WEIGHT)


def imagined(imagination, model, agent, seed=5) -> Trajectories:
    return imagination.imagine_and_judge(model, agent, agent.policy_step, begun(seed))


def learn(imagination, model, agent, judged) -> dict[str, torch.Tensor]:
    """Backward of the two losses and of one of the critic's own; the metrics."""
    scale = agent.norm.update(judged.returns)
    losses = actor_critic_losses(judged, scale, 3e-3)
    losses["repval"] = agent.critic.loss(agent.critic(starts().features()), torch.ones(ROWS))
    imagination.backward(losses, {"policy": 1.0, "value": 0.5, "repval": 0.3})
    return trajectory_metrics(judged, scale, 17)


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    parallel.use(request.param)
    return request.param


@pytest.mark.parametrize("beside", [True, False])
def test_shared_rows_learn_what_one_imagination_of_all_trajectories_teaches(threads, beside, monkeypatch):
    model, agent = make()
    whole, shared, plain = copy.deepcopy(agent), SharedImagination(beside), Imagination()
    judged = imagined(shared, model, agent)
    assert len(shared.pieces) == threads
    expected = imagined(plain, model, whole)
    assert judged.bonus is None
    for name, one, other in zip(Trajectories._fields[:-1], judged[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    metrics = learn(shared, model, agent, judged)
    theirs = learn(plain, model, whole, expected)
    for name in theirs:
        torch.testing.assert_close(metrics[name], theirs[name], rtol=1e-4, atol=1e-5)
    for (name, one), (_, other) in zip(agent.named_parameters(), whole.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_a_part_that_is_frozen_is_left_alone(threads):
    model, agent = make()
    agent.actor.requires_grad_(False)
    shared = SharedImagination(True)
    learn(shared, model, agent, imagined(shared, model, agent))
    assert all(p.grad is None for p in agent.actor.parameters())
    assert all(p.grad is not None for p in agent.critic.parameters())


def test_trajectories_depend_on_the_numbers_that_were_drawn_and_not_on_the_threads(threads):
    model, agent = make()
    one, other = (imagined(SharedImagination(True), model, agent, seed).log_prob for seed in (5, 6))
    alone = imagined(Imagination(), model, agent).log_prob
    torch.testing.assert_close(one, alone, rtol=1e-4, atol=1e-5)
    assert not torch.equal(one, other)
