"""Mean reward of the steps after a call of a skill, compared with as many steps after a primitive action."""

from __future__ import annotations

import math
from typing import Any

from lore.gate.trust import ForgettingMean

__all__ = ["Worth"]

HORIZON = 25
"""Steps whose reward a choice is judged by: a skill that prepares gets some of what it prepared."""
MIN_TRIALS = 10
"""Calls before anything is concluded."""
DOUBT = 3.0
"""Standard errors by which a skill must be worse; it is asked after every episode, for every slot."""


class Worth:
    """Every own choice of the policy starts a trial; its outcome is the reward of the next ``HORIZON`` steps, or up to
    the episode's end, whoever acts in them. So long and short skills and primitive actions are judged by equal spans.

    Args:
        skills: K.
    """

    def __init__(self, skills: int) -> None:
        self.means = [ForgettingMean(200.0) for _ in range(skills)] + [ForgettingMean(5000.0)]  # the last: primitives
        self.open: list[list[list[float]]] = []  # per environment [skill or -1, steps left, reward]

    def step(self, env: int, reward: float) -> None:
        """The reward that arrived after one more step."""
        trials = self._of(env)
        for trial in trials:
            trial[1] -= 1
            trial[2] += reward
        while trials and trials[0][1] <= 0:
            self._conclude(trials.pop(0))

    def choose(self, env: int, skill: int) -> None:
        """The policy called a skill, or (-1) played a primitive action."""
        self._of(env).append([float(skill), float(HORIZON), 0.0])

    def end(self, env: int) -> None:
        """The episode ended: open trials end with it."""
        for trial in self._of(env):
            self._conclude(trial)
        self._of(env).clear()

    def forget_open(self) -> None:
        """Drop the trials under way: another world begins."""
        self.open = []

    def forget(self, skill: int) -> None:
        """Judge a skill afresh."""
        self.means[skill] = ForgettingMean(200.0)

    def behind(self, skill: int) -> float:
        """Standard errors by which calls of the skill are worth less than primitive actions; 0 before both are
        known."""
        called, own = self.means[skill], self.means[-1]
        if called.weight < MIN_TRIALS or own.weight < MIN_TRIALS:
            return 0.0
        # Trials of primitive actions overlap, up to one per step: they count by the horizon.
        noise = math.sqrt(called.variance() / called.weight + own.variance() * HORIZON / own.weight + 1e-12)
        return max(0.0, (own.mean - called.mean) / noise)

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
        self.open = [[list(t) for t in trials] for trials in state["open"]]
        for mean, values in zip(self.means, state["means"], strict=True):
            mean.weight, mean.mean, mean.square = values
