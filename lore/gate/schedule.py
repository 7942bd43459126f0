"""What falls over environment steps: the weight of kickstarting, the gate's budget, and how much of an episode may be
guided (Ross et al. 2011, DAgger: the learner acts, the teacher labels; NCRL, arXiv 2502.19544: guided blocks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lore.gate.config import GateConfig

__all__ = ["Guidance", "scheduled"]

_EVER = 2**53


def scheduled(start: float, end: float, steps: int, at: int) -> float:
    """The value at environment step ``at``: from ``start`` in a line to ``end``, which is reached after ``steps``."""
    return start + min(1.0, at / steps) * (end - start)


class Guidance:
    """Which steps of an episode the gate may guide: in the others the agent acts, and the advice is kept as a label.

    ``episodes``: a share of whole episodes. ``blocks``: that share of episodes has one guided stretch of
    ``gate.guided_block`` steps, which lies anywhere in as many steps as the episode before it had. The share falls
    from 1 to ``gate.guided_end`` over ``gate.guided_steps`` environment steps.

    Args:
        config: of the gate. num_envs: E. rng: of the draws, one episode at a time.
    """

    def __init__(self, config: GateConfig, num_envs: int, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        until = config.guided_block if config.guided == "blocks" else _EVER
        self.stretch = [[0, 0, until] for _ in range(num_envs)]  # [steps so far, first guided one, first no more so]

    def is_on(self, env: int) -> bool:
        """May the present step of ``env`` be guided?"""
        now, begin, end = self.stretch[env]
        return begin <= now < end

    def step(self, env: int) -> None:
        """One more step was played."""
        self.stretch[env][0] += 1

    def begin(self, env: int, env_steps: int) -> None:
        """The next episode of ``env`` begins, ``env_steps`` into training."""
        config, length = self.config, self.stretch[env][0]
        begin, end = 0, _EVER
        if config.guided == "blocks":
            begin = int(self.rng.integers(max(1, length - config.guided_block + 1)))
            end = begin + config.guided_block
        if self.rng.random() >= scheduled(1.0, config.guided_end, config.guided_steps, env_steps):
            begin = end = 0
        self.stretch[env] = [0, begin, end]

    def state_dict(self) -> list[list[int]]:
        """JSON-able state; the generator belongs to whoever gave it."""
        return [list(s) for s in self.stretch]

    def load_state_dict(self, state: list[list[int]]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.stretch = [list(s) for s in state]
