"""MiniGrid-Empty-5x5 as the learner sees games: the board in 16x16 pixels, three actions, a terminal goal."""

from __future__ import annotations

from typing import Any

import numpy as np

from lore.envs.base import Step
from lore_datasets.environments import Environment
from lore_datasets.vocab import Vocab

__all__ = ["EmptyRoom"]

ACTIONS = ("left", "right", "forward")
HEADINGS = ((1, 2), (2, 1), (1, 0), (0, 1))
"""Row and column, inside a cell of three pixels, of the mark that shows where the player looks."""


class EmptyRoom:
    """The package's own game; only frames are painted here, three pixels a cell.

    Args:
        seed: of the package's generator. limit: steps after which an episode is cut (not terminal).
    """

    spec = Environment(
        "minigrid_empty", Vocab("minigrid_empty", ACTIONS, ("nothing", "player"), (), (), (),
        (("here", 0, 0, ACTIONS[0]),), (1, 1), ()), "minigrid_empty/0", (),
    )  # fmt: skip

    def __init__(self, seed: int = 0, limit: int = 50) -> None:
        import gymnasium
        from minigrid.wrappers import FullyObsWrapper  # importing the package registers its games

        self._game = FullyObsWrapper(gymnasium.make("MiniGrid-Empty-5x5-v0", max_steps=limit))
        self._seed: int | None = seed
        self._blank = np.zeros(self.spec.layout.size, np.uint8)
        self._episode = self._length = 0
        self._board = np.zeros((5, 5, 3), np.uint8)

    def reset(self, seed: int | None = None) -> Step:
        """Begin the next episode."""
        seed, self._seed = (self._seed if seed is None else seed), None
        observation, _ = self._game.reset(seed=seed)
        self._episode, self._length, self._board = self._episode + 1, 0, observation["image"]
        return self._step(0.0, True, False, False)

    def step(self, action: int) -> Step:
        """Play one action: turn left, turn right, go forward."""
        observation, reward, terminated, truncated, _ = self._game.step(int(action))
        self._length, self._board = self._length + 1, observation["image"]
        return self._step(float(reward), False, bool(terminated or truncated), bool(terminated))

    def _step(self, reward: float, first: bool, last: bool, terminal: bool) -> Step:
        info = {"achievements": np.zeros(0, np.int16), "episode": self._episode, "length": self._length}
        return Step(self._blank, self.render(), reward, first, last, terminal, info)

    def render(self) -> np.ndarray:
        """uint8[16, 16, 3]: walls grey, goal green, player white with a red mark ahead."""
        frame = np.zeros((16, 16, 3), np.uint8)
        for x in range(5):
            for y in range(5):
                kind, _, heading = (int(v) for v in self._board[x, y])
                cell = frame[3 * y : 3 * y + 3, 3 * x : 3 * x + 3]
                cell[:] = {2: 90, 8: (0, 200, 0), 10: 255}.get(kind, 0)
                if kind == 10:
                    cell[HEADINGS[heading]] = 255, 0, 0
        return frame

    def state_dict(self) -> dict[str, Any]:
        """Not offered: the check never resumes."""
        raise RuntimeError("this game has no snapshots")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Not offered: the check never resumes."""
        raise RuntimeError("this game has no snapshots")
