"""Trust in the advice: reward after decisions that followed it, compared with reward after the policy's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lore.gate.learned_weights import LearnedWeights

__all__ = ["ForgettingMean", "Trust"]

MIN_TRIALS = 20
"""Followed decisions before anything is concluded."""
DOUBT = 1.64
"""Standard errors by which following must be worse before trust shrinks (one-sided 95 %)."""
FLOOR = 0.01
"""Least trust: a little is always tried again, so that a verdict can change."""


class ForgettingMean:
    """Mean and variance with exponential forgetting."""

    def __init__(self, memory: float) -> None:
        self.memory, self.weight, self.mean, self.square = memory, 0.0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.weight = min(self.weight + 1.0, self.memory)
        self.mean += (value - self.mean) / self.weight
        self.square += (value * value - self.square) / self.weight

    def variance(self) -> float:
        return max(0.0, self.square - self.mean**2)


class Trust:
    """Every decision at which advice was at hand starts a trial: followed or not. Its outcome is the reward of the next
    ``horizon`` steps, or up to the episode's end. Where following is worse by more than chance, ``value`` falls, the
    faster the surer that is.

    Whether a decision is followed is drawn at random in each state, so the two groups differ by little else. Harm that
    shows later than ``horizon`` steps is not seen.

    Args:
        num_envs: environments. horizon: steps of a trial.
        learned: also told of every trial with the signals at its decision, None = nobody.

    Attributes:
        value: factor on the weight of all advice, in [0.01, 1].
    """

    def __init__(self, num_envs: int, horizon: int, learned: LearnedWeights | None = None) -> None:
        self.horizon = horizon
        self.value = 1.0
        self.learned = learned
        self.open: list[list[list[float]]] = [[] for _ in range(num_envs)]  # [followed, steps left, reward, *signals]
        self.means = {True: ForgettingMean(500.0), False: ForgettingMean(5000.0)}

    @property
    def is_tested(self) -> bool:
        """Enough trials of both kinds have ended to tell harm."""
        return all(mean.weight >= MIN_TRIALS for mean in self.means.values())

    @property
    def is_earned(self) -> bool:
        """Tested, and nothing speaks for harm."""
        return self.is_tested and self.harm() < 0.5 * DOUBT

    def harm(self) -> float:
        """By how many standard errors the policy's own decisions earn more than followed ones, once both are known."""
        own, advised = self.means[False], self.means[True]
        # Trials of the policy's own decisions overlap, up to one per step: they count by the horizon.
        noise = math.sqrt(advised.variance() / advised.weight + own.variance() * self.horizon / own.weight + 1e-12)
        return (own.mean - advised.mean) / noise

    def step(self, env: int, reward: float) -> None:
        """The reward that arrived after one more step."""
        trials = self.open[env]
        for trial in trials:
            trial[1] -= 1
            trial[2] += reward
        while trials and trials[0][1] <= 0:
            self._conclude(*trials.pop(0))

    def decide(self, env: int, followed: bool, signals: Sequence[float] | np.ndarray = ()) -> None:
        """A decision with advice at hand was made; ``signals``: the normalised signs of uncertainty there."""
        kept = map(float, signals) if self.learned is not None else ()
        self.open[env].append([float(followed), float(self.horizon), 0.0, *kept])

    def end(self, env: int) -> None:
        """The episode ended: open trials end with it."""
        for trial in self.open[env]:
            self._conclude(*trial)
        self.open[env] = []

    def forget_open(self) -> None:
        """Drop the trials under way: another world begins."""
        self.open = [[] for _ in self.open]

    def regret(self) -> float:
        """Reward per step of the policy's own decisions minus that of followed ones; 0 before both are known."""
        own, followed = self.means[False], self.means[True]
        return (own.mean - followed.mean) / self.horizon if own.weight and followed.weight else 0.0

    def _conclude(self, followed: float, left: float, reward: float, *signals: float) -> None:
        del left
        if self.learned is not None and signals:
            self.learned.add(bool(followed), reward, np.array(signals))
        self.means[bool(followed)].add(reward)
        if not self.is_tested:
            return
        harm = self.harm()
        if harm > DOUBT:
            self.value = max(FLOOR, self.value * 0.97 ** ((harm / DOUBT) ** 2))
        elif harm < 0.5 * DOUBT:
            self.value = min(1.0, self.value * 1.01)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        means = {str(int(k)): [m.weight, m.mean, m.square] for k, m in self.means.items()}
        return {"value": self.value, "open": [[list(t) for t in trials] for trials in self.open], "means": means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.value = state["value"]
        self.open = [[list(t) for t in trials] for trials in state["open"]]
        for key, values in state["means"].items():
            mean = self.means[key == "1"]
            mean.weight, mean.mean, mean.square = values
