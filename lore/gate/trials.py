"""Trials: a choice, and the reward of the steps after it."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["ForgettingMean", "Trials"]


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


class Trials:
    """Every choice starts a trial; its outcome is the reward of the next ``horizon`` steps, or up to the episode's end,
    whoever acts in them.

    Args:
        horizon: steps of a trial. means: what the choices have earned, by choice.
    """

    def __init__(self, horizon: int, means: list[ForgettingMean]) -> None:
        self.horizon, self.means = horizon, means
        self.open: list[list[list[float]]] = []  # per environment [choice, steps left, reward]

    def start(self, env: int, choice: int) -> None:
        """A choice was made."""
        self._of(env).append([float(choice), float(self.horizon), 0.0])

    def step(self, env: int, reward: float) -> None:
        """The reward that arrived after one more step."""
        trials = self._of(env)
        for trial in trials:
            trial[1] -= 1
            trial[2] += reward
        while trials and trials[0][1] <= 0:
            self._conclude(trials.pop(0))

    def end(self, env: int) -> None:
        """The episode ended: open trials end with it."""
        for trial in self._of(env):
            self._conclude(trial)
        self._of(env).clear()

    def forget_open(self) -> None:
        """Drop the trials under way: another world begins."""
        self.open = []

    def less(self, choice: int, own: int) -> float:
        """Standard errors by which ``choice`` earns less than the policy's ``own`` decisions, both being known. Trials
        of the latter overlap, up to one per step: they count by the horizon."""
        a, b = self.means[own], self.means[choice]
        noise = math.sqrt(b.variance() / b.weight + a.variance() * self.horizon / a.weight + 1e-12)
        return (a.mean - b.mean) / noise

    def _of(self, env: int) -> list[list[float]]:
        while len(self.open) <= env:
            self.open.append([])
        return self.open[env]

    def _conclude(self, trial: list[float]) -> None:
        self.means[int(trial[0])].add(trial[2])

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        open_ = [[list(t) for t in trials] for trials in self.open]
        return {"means": [[m.weight, m.mean, m.square] for m in self.means], "open": open_}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        means = state["means"]
        if isinstance(means, dict):  # of trust, in older checkpoints
            means = [means["0"], means["1"]]
        self.open = [[list(t) for t in trials] for trials in state["open"]]
        for mean, values in zip(self.means, means, strict=True):
            mean.weight, mean.mean, mean.square = values
