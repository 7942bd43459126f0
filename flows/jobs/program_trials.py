"""Drafts of a program played without learning, all in the same fresh worlds: how the offline phase chooses among them.

The worlds are the choice's own; what a version is worth is measured in others (:mod:`flows.jobs.play`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lore_datasets.environments import Environment
    from lore_datasets.language.programs import Program
    from lore_datasets.language.skills import Skill

__all__ = ["WORLDS", "ProgramTrials"]

WORLDS = 20
"""Worlds in which every draft plays one life."""
_SEED = 52_000_000
"""Apart from the seeds of training, of evaluation and of play."""


class ProgramTrials:
    """``ProgramTrials(environment, seed)(program, skills) -> returns``, one per world; the same seed, the same worlds.

    Attributes:
        steps: environment steps of all lives so far.
    """

    def __init__(self, environment: Environment, seed: int = 0, *, worlds: int = WORLDS, length: int = 10_000) -> None:
        self.environment, self.seed, self.worlds, self.length = environment, seed, worlds, length
        self.steps = 0

    def __call__(self, program: Program, skills: Sequence[Skill]) -> list[float]:
        """Play one life of the program in every world."""
        from lore.options.play import GoalPlayer
        from lore_datasets.language.evaluator import Evaluator

        vocab = self.environment.vocab
        player = GoalPlayer(Evaluator(program, skills, vocab).ranking, skills, vocab)
        return [self._life(player, world) for world in range(self.worlds)]

    def _life(self, player, world: int) -> float:
        from lore.config import EnvConfig
        from lore.envs import make_env
        from lore_datasets.language.geometry import StateView

        config = EnvConfig(name=self.environment.name, observation="symbolic", length=self.length)
        env = make_env(config, _SEED + 1000 * self.seed + world)
        rng, total = np.random.default_rng([self.seed, world]), 0.0
        player.reset()
        step = env.reset()
        while not step.is_last:
            step = env.step(player(StateView(step.state, self.environment.vocab), rng))
            total += step.reward
            self.steps += 1
        return total
