"""The baseline ``advice.prefill_steps``: an advice version plays the first steps of a run by itself, then it is gone.

Those steps are the run's own: counted, stored in replay, learned from. What comes after them is the policy alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.evaluation.play import AdvisedChoice
from lore.options.charge import Choice
from lore.options.play import GoalPlayer
from lore_datasets.language.geometry import StateView

if TYPE_CHECKING:
    from lore.advice.lookup import AdviceSource

__all__ = ["Prefill"]

_LOG = logging.getLogger("lore")


class Prefill:
    """Plays the version as ``lore datasets play`` does: its first choice, held ``hold`` steps or until it ends.

    Args:
        source: the version. steps: environment steps that it plays. hold: steps of a choice at most.
        num_envs: E. rng: of the skills' walks.

    Attributes:
        failures: steps at which a look-up or a skill raised an error, and a random action was played.
    """

    def __init__(self, source: AdviceSource, steps: int, hold: int, num_envs: int, rng: np.random.Generator) -> None:
        self.vocab, self.steps, self.rng, self.failures = source.environment.vocab, steps, rng, 0
        choose = AdvisedChoice(source, rng)
        self.players = [GoalPlayer(choose, source.data.skills, self.vocab, hold) for _ in range(num_envs)]

    def act(self, env: int, state: np.ndarray) -> Choice:
        """What the version does in the packed state uint8[S] of one environment."""
        try:
            action = self.players[env](StateView(state, self.vocab), self.rng)
        except Exception as error:
            if not self.failures:
                _LOG.warning("prefill: the advice failed (%s); a random action is played", error)
            self.failures += 1
            self.players[env].reset()
            action = int(self.rng.integers(len(self.vocab.actions)))
        return Choice(action, np.zeros(0, np.int8), -1, -1)

    def reset(self, env: int) -> None:
        """The episode of ``env`` ended."""
        self.players[env].reset()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: who is held in each environment, random generator."""
        players = [player.state_dict() for player in self.players]
        return {"players": players, "failures": self.failures, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        for player, body in zip(self.players, state["players"], strict=True):
            player.load_state_dict(body, self.rng)
        self.failures, self.rng.bit_generator.state = state["failures"], state["rng"]
