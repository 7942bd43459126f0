"""Imagination in pieces: the losses and gradients of one over all trajectories, and draws that can be repeated."""

import copy

import pytest
import torch

from lore.config import Size
from lore.dreamer.actor_critic import ActorCritic, imagination_loss
from lore.dreamer.imagination import Dreams
from lore.dreamer.types import Imagined, Latent
from lore.dreamer.world_model import WorldModel
from lore.fast import parallel
from lore_datasets.environments import Environment
from lore_datasets.environments.crafter import KEY_SCHEME, VOCAB

SMALL = Size(deter=64, hidden=16, classes=4, depth=4, units=32, stoch=8)
ROWS, HORIZON = 13, 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make() -> tuple[WorldModel, ActorCritic]:
    model = WorldModel("symbolic", Environment("crafter", VOCAB, KEY_SCHEME, ()), SMALL, generator=seeded())
    agent = ActorCritic(model.features, 17, SMALL, generator=seeded(1))
    for head in (model.reward, agent.actor, agent.critic, agent.slow_critic):
        torch.nn.init.normal_(head.out.weight, std=0.1, generator=seeded(2))
    return model, agent


def dreams(model: WorldModel, agent: ActorCritic, seed: int = 5) -> Dreams:
    stoch = torch.nn.functional.one_hot(torch.randint(4, (ROWS, 8), generator=seeded(3)), 4).float()
    starts, weight = Latent(torch.rand(ROWS, 64, generator=seeded(4)), stoch), torch.linspace(0.5, 1.0, ROWS)
    return Dreams(model, agent, agent.policy_step, starts, weight, HORIZON, seeded(seed))


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    parallel.use(request.param)
    return request.param


def test_pieces_learn_what_one_imagination_of_all_trajectories_teaches(threads):
    model, agent = make()
    whole = copy.deepcopy(agent)
    found = dreams(model, agent)
    assert len(found.parts) == threads
    losses, metrics = found.learn(3e-3)

    columns = zip(*(part.imagined for part in found.parts), strict=True)
    *fields, last = [None if c[0] is None else c for c in columns]
    joined = [None if c is None else torch.cat(c) for c in fields]
    imagined = Imagined(*joined, Latent(*(torch.cat(c) for c in zip(*last, strict=True))))
    with torch.no_grad():
        reward, cont = model.predict(imagined.features)
    weight, logits = torch.linspace(0.5, 1.0, ROWS)[:, None], whole.actor(imagined.features[:, :-1])
    torch.testing.assert_close(imagined.logits, logits, rtol=1e-4, atol=1e-5)
    imagined = imagined._replace(logits=logits)
    terms, returns, expected = imagination_loss(whole, imagined, reward, cont, entropy=3e-3, weight=weight)
    (terms["policy"].mean() + terms["value"].mean()).backward()

    torch.testing.assert_close(found.returns, returns, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(agent.norm.high, whole.norm.high)
    assert metrics.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(metrics[name], expected[name], rtol=1e-4, atol=1e-5)
    for name, term in terms.items():
        torch.testing.assert_close(losses[name], term.detach(), rtol=1e-4, atol=1e-5)
    for (name, one), (_, other) in zip(agent.trainable(), whole.trainable(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_gradients_are_added_to_those_that_are_there(threads):
    (model, once), (_, twice) = make(), make()
    dreams(model, once).learn(3e-3)
    for _, parameter in twice.trainable():
        parameter.grad = torch.ones_like(parameter)
    dreams(model, twice).learn(3e-3)
    for (_, one), (_, other) in zip(once.trainable(), twice.trainable(), strict=True):
        torch.testing.assert_close(other.grad, one.grad + 1.0)


def test_a_part_that_is_frozen_is_left_alone(threads):
    model, agent = make()
    agent.actor.requires_grad_(False)
    dreams(model, agent).learn(3e-3)
    assert all(p.grad is None for p in agent.actor.parameters())
    assert all(p.grad is not None for p in agent.critic.parameters())


def test_work_beside_may_give_the_same_parameters_gradients(threads):
    (model, alone), (_, beside) = make(), make()

    def work():
        for _, parameter in beside.trainable():
            parameter.grad = torch.ones_like(parameter)

    dreams(model, alone).learn(3e-3)
    dreams(model, beside).learn(3e-3, work)
    for (_, one), (_, other) in zip(alone.trainable(), beside.trainable(), strict=True):
        torch.testing.assert_close(other.grad, one.grad + 1.0)


def test_draws_depend_on_the_generator_and_the_number_of_threads_alone(threads):
    model, agent = make()
    actions = [torch.cat([p.imagined.action for p in dreams(model, agent, seed).parts]) for seed in (5, 5, 6)]
    assert torch.equal(actions[0], actions[1]) and not torch.equal(actions[0], actions[2])
