"""Training of the real learner on toy games: its own agent, update, replay and player; only the sizes are small."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from lore.config import Config, load_config
from lore.envs.base import Env, Step
from lore.envs.vector import VectorEnv
from lore.options.controller import Controller
from lore.replay.ring import Replay, latent_fields
from lore.sizes import Size
from lore.training.agent import Agent
from lore.training.clock import Ratio
from lore.training.learner import Learner
from lore.training.player import Player

SIZE = Size(deter=64, hidden=48, classes=4, depth=4, units=48, stoch=8)
FRAME = (16, (2, 4))
START = 200
"""Environment steps before the first update."""


def toy_config(seed: int, **more) -> Config:
    """One update per step of B*T = 8*16, H = 8, lr 1e-3, warm-up 50, entropy 3e-3."""
    settings = {
        "observation": "pixels", "batch_size": 128, "sequence_length": 16, "train_ratio": 128.0, "horizon": 8,
        "learning_rate": 1e-3, "warmup": 50, "entropy": 3e-3, "seed": seed, "device": "cpu", "replay_capacity": 10_000,
    }  # fmt: skip
    return load_config(**(settings | more))


@dataclass
class Episode:
    """One finished training episode."""

    score: float
    length: int
    actions: list[int]
    final: Step
    first: np.ndarray


@dataclass
class Trainer:
    """A game and everything that learns it.

    Args:
        actor: False takes the actor's gradient away. memory: False starts every belief afresh.
        entropy: weight of the policy's entropy.
    """

    env: Env
    seed: int
    actor: bool = True
    memory: bool = True
    entropy: float = 3e-3
    episodes: list[Episode] = field(default_factory=list)
    metrics: list[dict[str, float]] = field(default_factory=list)
    cpu_s: float = 0.0

    def __post_init__(self) -> None:
        torch.set_num_threads(1)
        config, cpu = toy_config(self.seed, entropy=self.entropy), torch.device("cpu")
        seeds = [int(s) for s in np.random.SeedSequence(self.seed).generate_state(5)]
        rng = [torch.Generator().manual_seed(s) for s in seeds[:3]]
        self.agent = Agent(config, self.env.spec, 0, rng[0], size=SIZE, frame=FRAME)
        self.agent.actor_critic.actor.requires_grad_(self.actor)
        if not self.memory:
            _forget(self.agent)
        self.learner = Learner(self.agent, config, rng[1], cpu)
        controller = Controller(config, None, None, None, 1, self.agent.num_actions, np.random.default_rng(seeds[3]))
        self.player = Player(self.agent, controller, 1, cpu, rng[2])
        fields = {
            "state": ((self.env.spec.layout.size,), np.uint8), "image": ((16, 16, 3), np.uint8),
            "action": ((), np.int64), "reward": ((), np.float32), "is_first": ((), np.bool_), "is_last": ((), np.bool_),
            "is_terminal": ((), np.bool_), **latent_fields(SIZE.deter, SIZE.stoch),
        }  # fmt: skip
        self.replay = Replay(fields, config.train.replay_capacity, 1, seeds[4], length=17)
        self.ratio = Ratio(config.train.train_ratio / config.train.batch_size)
        self.vector = VectorEnv([lambda: self.env])
        self.frames = 0

    def train(self, updates: int, until: Callable[[Trainer], bool] | None = None) -> bool:
        """Play and learn until ``until`` (asked after every finished episode) or so many updates; was it reached?"""
        began, steps = time.process_time(), self.vector.reset()
        current = Episode(0.0, 0, [], steps[0], steps[0].image)
        try:
            while self.learner.updates < updates:
                actions, records = self.player.act(steps, self.frames)
                self.replay.add(0, records[0])
                step = steps[0]
                current.score += step.reward
                if step.is_last:
                    current.length, current.final = step.info["length"], step
                    self.episodes.append(current)
                    if until is not None and until(self):
                        return True
                else:
                    current.actions.append(actions[0])
                    self.frames += 1
                steps = self.vector.step(actions)
                if steps[0].is_first:
                    current = Episode(0.0, 0, [], steps[0], steps[0].image)
                if self.frames >= START:
                    for _ in range(self.ratio(self.frames)):
                        self._update()
            return False
        finally:
            self.cpu_s += time.process_time() - began

    def _update(self) -> None:
        records = self.replay.sample(8)
        posterior, metrics = self.learner.update(records)
        assert self.learner.optimiser.finite, "a gradient was not finite"
        self.replay.write_back(records["indices"], posterior.deter, posterior.stoch)
        if self.learner.updates % 10 == 0:
            self.metrics.append({name: float(value) for name, value in metrics.items()})

    def last(self, n: int) -> tuple[float, float]:
        """Mean score and length of the last ``n`` episodes; (nan, nan) before there are so many."""
        if len(self.episodes) < n:
            return float("nan"), float("nan")
        newest = self.episodes[-n:]
        return float(np.mean([e.score for e in newest])), float(np.mean([e.length for e in newest]))


def _forget(agent: Agent) -> None:
    """Cut the recurrent state: every observation is taken for the first of an episode, acting and training alike."""
    rssm = agent.world_model.rssm
    observe, observe_step = rssm.observe, rssm.observe_step
    rssm.observe = lambda tokens, action, first, *rest: observe(tokens, action, torch.ones_like(first), *rest)
    rssm.observe_step = lambda tokens, action, first, *rest: observe_step(tokens, action, torch.ones_like(first), *rest)


@torch.no_grad()
def continue_predictions(trainer: Trainer, env: Env, episodes: int) -> tuple[list[float], list[float]]:
    """What the world model says of going on, at lethal entries and at time-outs, in episodes of random play."""
    model, rng = trainer.agent.world_model, np.random.default_rng(trainer.seed)
    generator = torch.Generator().manual_seed(trainer.seed)
    at_death, at_limit = [], []
    for _ in range(episodes):
        step, latent, action = env.reset(), model.rssm.initial(1), 0
        while True:
            tokens = model.encode(torch.from_numpy(step.image.copy())[None])
            latent = model.rssm.observe_step(
                tokens,
                torch.tensor([action]),
                torch.tensor([step.is_first]),
                latent,
                latent.numbers(generator),
            )
            if step.is_last:
                break
            action = int(rng.integers(trainer.agent.num_actions))
            step = env.step(action)
        _, cont = model.predict(latent.features())
        if step.is_terminal and step.reward < 0:
            at_death.append(float(cont))
        elif not step.is_terminal:
            at_limit.append(float(cont))
    return at_death, at_limit
