"""Poisoned advice: the worst choice, always, with full confidence. What it may cost, and what contains it."""

import numpy as np
import pytest
import torch

from lore.advice.lookup import AdviceSource
from lore.advice.types import AdviceBatch
from lore.config import load_config
from lore.dreamer.actor_critic import ActorCritic
from lore.envs.crafter.adapter import CrafterEnv
from lore.gate.gate import Gate
from lore.gate.kickstart import kickstart_loss, kickstart_weight
from lore.gate.trust import Trust
from lore.options.controller import Controller
from lore.sizes import SIZES
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.testing import small_advice

ENV = get_environment("crafter")
A, K = len(ENV.vocab.actions), len(ENV.skills)
SKILLS = [s.name for s in ENV.skills]
UNSURE = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
GOOD = 5  # the one action that pays in the bandit


class Poison(AdviceSource):
    """A version that says one entry in every state, with confidence 1."""

    entry = 0

    def lookup(self, states: np.ndarray) -> AdviceBatch:
        n = len(states)
        logits = np.full((n, A + K), -1.0, np.float32)
        logits[:, self.entry] = 5.0
        none = np.full(n, -1, np.int64)
        return AdviceBatch(logits, np.ones((n, A + K), bool), np.ones(n, np.float32), np.zeros(n, np.int64), none)


class Blindly(Trust):
    """Trust that never falls: what the KL budget alone can do."""

    is_earned = True

    def _conclude(self, trial: list[float]) -> None:
        super()._conclude(trial)
        self.value = 1.0


@pytest.fixture
def poison(own_datasets):
    def make(entry: int) -> Poison:
        source = Poison(load_advice(str(small_advice(own_datasets, ENV, n=20)), root=own_datasets))
        source.entry = entry
        return source

    return make


def controller(source: AdviceSource | None, seed: int, trusting: bool = False, **given) -> Controller:
    settings = {"gate.enabled": True, "dataset": "poison"} | given if source else {}
    config = load_config(**settings)
    gate = Gate(config.gate) if source else None
    c = Controller(config, source, None, gate, 1, A, np.random.default_rng(seed))
    if trusting and c.gate is not None:
        c.gate.trust = Blindly(c.gate.trust.horizon)
    return c


def bandit(c: Controller, state: np.ndarray, steps: int, seed: int) -> float:
    """Expected reward per step of a briefly trained policy (half of its mass on the action that pays 1 in 5 times)."""
    logits, rng, total, reward = np.zeros(A), np.random.default_rng(seed), 0.0, 0.0
    logits[GOOD] = np.log(A - 1)
    for _ in range(steps):
        action = c.act(0, state, reward, logits, UNSURE).action
        reward = float(action == GOOD and rng.random() < 0.2)
        total += 0.2 * (action == GOOD)
    return total / steps


def kickstarted(c: Controller, state: np.ndarray, steps: int, seed: int) -> tuple[float, float]:
    """As :func:`bandit`, with an actor that begins there and learns: every eight steps REINFORCE on their rewards, and
    kickstarting on their advice. (Expected reward per step in the last quarter, probability of the poison without
    advice.)"""
    assert c.gate is not None
    features, rng, reward, mean, earned, kept = torch.ones(8, 8), np.random.default_rng(seed), 0.0, 0.1, [], []
    agent, entries = ActorCritic(8, A, SIZES["tiny"], generator=torch.Generator().manual_seed(seed)), torch.arange(8)
    with torch.no_grad():
        agent.actor.out.bias[GOOD] = np.log(A - 1)
    optimiser, none = torch.optim.Adam(agent.actor.parameters(), 3e-3), torch.zeros(0, dtype=torch.int64)
    for c.gate.env_steps in range(steps):
        if c.gate.env_steps % 8 == 0:
            logits = agent.actor(features)
            if kept:
                actions, gains, advice, proposals, sure = map(np.stack, zip(*kept, strict=True))
                batch = {"advice": advice, "proposals": proposals, "confidence": sure}
                drawn, _ = kickstart_loss(
                    agent, features, {k: torch.from_numpy(v)[None] for k, v in batch.items()}, none, A
                )
                own = -logits.log_softmax(-1)[entries, torch.from_numpy(actions)] * torch.from_numpy(gains)
                optimiser.zero_grad()
                (own + kickstart_weight(c.gate) * drawn).mean().backward()
                optimiser.step()
                told, kept = int(proposals[-1][advice[-1][A:].argmax()]), []
        choice = c.act(0, state, reward, logits[0].detach().numpy(), UNSURE)
        reward = float(choice.action == GOOD and rng.random() < 0.2)
        kept.append((choice.action, reward - mean, choice.advice, choice.proposals, choice.confidence))
        mean += 0.01 * (reward - mean)
        earned.append(0.2 * (choice.action == GOOD))
    return float(np.mean(earned[3 * steps // 4 :])), float(agent.actor(features)[0].softmax(-1)[told].detach())


def test_on_a_toy_task_poison_costs_less_than_a_tenth_and_without_trust_far_more(poison):
    state = CrafterEnv(3, pixels=False).reset().state
    source = poison(A + SKILLS.index("explore"))  # walks about for ten steps at a time: never the action that pays
    plain, gated = bandit(controller(None, 0), state, 2500, 0), controller(source, 0)
    assert bandit(gated, state, 2500, 0) >= 0.9 * plain
    assert gated.gate.trust.value < 0.1
    assert gated.metrics()["uncertainty_gate/advice_regret"] > 0
    assert bandit(controller(source, 0, trusting=True), state, 400, 0) < 0.75 * plain


def test_kickstarting_does_not_copy_a_poisonous_adviser_because_trust_takes_its_weight(poison):
    state = CrafterEnv(3, pixels=False).reset().state
    source = poison(A + SKILLS.index("explore"))
    settings = {"gate.kickstart": 1.0, "gate.kickstart_floor": 1.0, "beta_max": 1.0, "delta_target": 0.5}
    contained, exposed = (controller(source, 0, trusting, **settings) for trusting in (False, True))
    earned, copied = kickstarted(contained, state, 1000, 0)
    assert contained.gate.trust.is_tested and kickstart_weight(contained.gate) < 0.1
    assert earned > 0.15 and copied < 0.15  # it has learned the action that pays
    earned, copied = kickstarted(exposed, state, 1000, 0)
    assert kickstart_weight(exposed.gate) == 1.0 and earned < 0.05 and copied > 0.8


def test_good_advice_is_let_through_on_the_same_task(poison):
    state = CrafterEnv(3, pixels=False).reset().state
    gated = controller(poison(GOOD), 0, **{"gate.hold": 1})
    assert bandit(gated, state, 1000, 0) > 0.105
    assert gated.gate.trust.value > 0.8
