"""Tiny games of 16x16 pixels whose best play is known: what a learner must master in a minute or two of CPU.

They have their own few words and no place in the contract's list of environments: no advice speaks about them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lore.envs.base import Step
from lore_datasets.environments import Environment
from lore_datasets.errors import UsageError
from lore_datasets.vocab import Vocab

__all__ = ["CueMemory", "Grid"]

_SIDE = 16


def _spec(name: str, actions: tuple[str, ...]) -> Environment:
    """A contract without things: one cell of view, and nothing to own."""
    directions = (("here", 0, 0, actions[0]),)
    vocab = Vocab(name, actions, ("nothing", "player"), (), (), (), directions, (1, 1), ())
    return Environment(name, vocab, f"{name}/0", ())


class _Toy:
    """What the games share: a generator of their own, episode counts and snapshots; subclasses paint and play."""

    spec: Environment

    def __init__(self, seed: int, limit: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._limit, self._episode, self._length, self._over = limit, 0, 0, True
        self._blank = np.zeros(self.spec.layout.size, np.uint8)

    def reset(self, seed: int | None = None) -> Step:
        """Begin the next episode, or the first one of ``seed``."""
        if seed is not None:
            self._rng, self._episode = np.random.default_rng(seed), 0
        self._episode += 1
        self._length, self._over = 0, False
        self._begin()
        return self._step(0.0, is_first=True, terminal=False)

    def step(self, action: int) -> Step:
        """Play one primitive action; UsageError after the end of an episode."""
        if self._over:
            raise UsageError("the episode is over", hint="call reset()")
        self._length += 1
        reward, terminal = self._play(int(action))
        return self._step(reward, is_first=False, terminal=terminal)

    def _step(self, reward: float, *, is_first: bool, terminal: bool) -> Step:
        self._over = terminal or self._length >= self._limit
        info = {"achievements": np.zeros(0, np.int16), "episode": self._episode, "length": self._length}
        return Step(self._blank, self.render(), float(reward), is_first, self._over, terminal, info)

    def state_dict(self) -> dict[str, Any]:
        """The whole game as JSON values."""
        return {
            "rng": self._rng.bit_generator.state, "episode": self._episode, "length": self._length, "over": self._over,
            "play": self._save(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        self._rng.bit_generator.state = state["rng"]
        self._episode, self._length, self._over = state["episode"], state["length"], state["over"]
        self._load(state["play"])

    def render(self) -> np.ndarray:
        """uint8[16, 16, 3] of the present state."""
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _play(self, action: int) -> tuple[float, bool]:
        """(reward, terminal) of one action."""
        raise NotImplementedError

    def _save(self) -> list[int]:
        raise NotImplementedError

    def _load(self, saved: list[int]) -> None:
        raise NotImplementedError


class Grid(_Toy):
    """4x4 cells of 4 pixels: walk from a random cell to the corner goal, +1 there; the best play takes 3.2 steps.

    Args:
        seed: of the starts. lethal: also paint a cell that ends the episode with -1. scale: factor on every reward.
        limit: steps after which an episode is cut (not terminal).
    """

    spec = _spec("toy_grid", ("left", "right", "up", "down"))
    MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
    GOAL, LETHAL = (3, 3), (1, 2)

    def __init__(self, seed: int = 0, *, lethal: bool = False, scale: float = 1.0, limit: int = 20) -> None:
        super().__init__(seed, limit)
        self._lethal, self._scale = lethal, scale
        self._at = (0, 0)

    def _begin(self) -> None:
        ends = {self.GOAL, self.LETHAL} if self._lethal else {self.GOAL}
        free = [(x, y) for x in range(4) for y in range(4) if (x, y) not in ends]
        self._at = free[int(self._rng.integers(len(free)))]

    def _play(self, action: int) -> tuple[float, bool]:
        dx, dy = self.MOVES[action]
        self._at = min(3, max(0, self._at[0] + dx)), min(3, max(0, self._at[1] + dy))
        if self._at == self.GOAL:
            return self._scale, True
        dead = self._lethal and self._at == self.LETHAL
        return (-self._scale if dead else 0.0), dead

    def render(self) -> np.ndarray:
        """uint8[16, 16, 3]: goal green, lethal cell red, player white on top."""
        cells = np.zeros((4, 4, 3), np.uint8)
        cells[self.GOAL[1], self.GOAL[0]] = 0, 200, 0
        if self._lethal:
            cells[self.LETHAL[1], self.LETHAL[0]] = 200, 0, 0
        cells[self._at[1], self._at[0]] = 255
        return cells.repeat(_SIDE // 4, 0).repeat(_SIDE // 4, 1)

    def _save(self) -> list[int]:
        return list(self._at)

    def _load(self, saved: list[int]) -> None:
        self._at = (saved[0], saved[1])


class CueMemory(_Toy):
    """A colour, a blank frame, a go frame; then action 0 is safe (0) and action 1 a gamble: +1 after cue 0, -1 after 1.

    The go frame looks the same after both cues: whoever forgets earns 0 on average, the best play 0.5.
    """

    spec = _spec("toy_cue", ("safe", "gamble"))
    COLOURS = ((220, 40, 40), (40, 40, 220))

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed, 3)
        self._cue = 0

    @property
    def cue(self) -> int:
        """The colour of this episode: 0 (gambling pays) or 1."""
        return self._cue

    def _begin(self) -> None:
        self._cue = int(self._rng.integers(2))

    def _play(self, action: int) -> tuple[float, bool]:
        done = self._length == 3
        return (action * (1.0 - 2.0 * self._cue) if done else 0.0), done

    def render(self) -> np.ndarray:
        """uint8[16, 16, 3]: one colour per moment."""
        colour = (self.COLOURS[self._cue], (90, 90, 90), (40, 200, 40), (0, 0, 0))[self._length]
        return np.full((_SIDE, _SIDE, 3), colour, np.uint8)

    def _save(self) -> list[int]:
        return [self._cue]

    def _load(self, saved: list[int]) -> None:
        self._cue = saved[0]
