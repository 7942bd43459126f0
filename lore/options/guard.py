"""Errors of advice kept out of the training loop: a look-up that fails is no advice, a skill that fails is masked.

Parsers and the interpreter refuse what they can beforehand; this is for what they cannot foresee. Each failure is
counted, and logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.advice.types import SOURCES, AdviceBatch
from lore.options.interpreter import Outcome, SkillRun, propose

if TYPE_CHECKING:
    from lore.advice.lookup import AdviceSource
    from lore_datasets.language.geometry import StateView
    from lore_datasets.language.skills import Skill

__all__ = ["Guard"]


class Guard:
    """Stands between the controller and a version's look-up and skills.

    Args:
        source: the advice. skills: its K skills.

    Attributes:
        broken: bool[K], skills that raised an error: they propose nothing from then on.
        failures: look-ups that raised an error since the last :meth:`metrics`.
    """

    def __init__(self, source: AdviceSource, skills: Sequence[Skill]) -> None:
        self.source, self.skills = source, skills
        self.broken = np.zeros(len(skills), bool)
        self.failures = 0
        self._said: set[str] = set()

    def lookup(self, state: np.ndarray) -> AdviceBatch:
        """Advice for one packed state uint8[S]; none, hence beta 0, where the source fails."""
        try:
            return self.source.lookup(state[None])
        except Exception as error:
            self.failures += 1
            self._say("the advice could not be looked up", error)
            width = self.source.num_actions + len(self.skills)
            return AdviceBatch(
                logits=np.zeros((1, width), np.float32), known=np.zeros((1, width), bool),
                confidence=np.zeros(1, np.float32), source=np.full(1, len(SOURCES) - 1, np.int64),
                row=np.full(1, -1, np.int64),
            )  # fmt: skip

    def propose(self, view: StateView) -> np.ndarray:
        """int8[K]: next action of each skill here, -1 where it cannot start or is broken."""
        out = np.full(len(self.skills), -1, np.int8)
        whole = np.flatnonzero(~self.broken)
        try:
            out[whole] = propose([self.skills[k] for k in whole.tolist()], view)
        except Exception:  # then one by one, to find whose fault it is
            for k in whole.tolist():
                try:
                    out[k] = propose([self.skills[k]], view)[0]
                except Exception as error:
                    self._break(k, error)
        return out

    def next_action(self, run: SkillRun, skill: int, view: StateView) -> int | Outcome:
        """:meth:`SkillRun.next_action`; a run that fails ends ``aborted``, and so does every later one."""
        if self.broken[skill]:
            return Outcome.aborted
        try:
            return run.next_action(view)
        except Exception as error:
            self._break(skill, error)
            return Outcome.aborted

    def _break(self, skill: int, error: Exception) -> None:
        self.broken[skill] = True
        self._say(f"skill {self.skills[skill].name} is masked", error)

    def _say(self, what: str, error: Exception) -> None:
        if what not in self._said:
            self._said.add(what)
            logging.getLogger("lore").warning("%s: %s: %s", what, type(error).__name__, error)

    def metrics(self) -> dict[str, float]:
        """``llm_adapter/failures`` since the last call, and ``options/broken``."""
        failures, self.failures = self.failures, 0
        return {"llm_adapter/failures": float(failures), "options/broken": float(self.broken.sum())}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"broken": self.broken.tolist(), "failures": self.failures}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.broken[:] = state["broken"]
        self.failures = state["failures"]
