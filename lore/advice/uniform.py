"""The control for what the skills are worth without any choice: all that can start are equally likely, everywhere.

What is left of the version is its vocabulary. The answer is exact in every state, not only in those of its rows, and as
loud as the gate allows (confidence 1), so that advice of the same skills has to beat it by choosing well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lore.advice.lookup import AdviceSource
from lore.advice.types import SOURCES, AdviceBatch

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = ["UniformSource", "uniform_advice"]


def uniform_advice(data: AdviceData) -> AdviceData:
    """The same version with rows that say nothing but which skills can start: equal logits, confidence 1, no plans."""
    rows, actions = data.rows, len(data.actions)
    mask = np.zeros_like(rows.mask)
    mask[:, actions:] = rows.applicable
    flat = replace(
        rows, logits=np.zeros_like(rows.logits), mask=mask, confidence=np.ones_like(rows.confidence),
        plan_lengths=np.zeros_like(rows.plan_lengths),
    )  # fmt: skip
    return replace(data, rows=flat, model=None, programs=())


class UniformSource(AdviceSource):
    """Every skill with the same weight in every state; whoever acts on it leaves out those that cannot start."""

    def lookup_batch(self, states: np.ndarray) -> AdviceBatch:
        """One answer for all packed states uint8[B, S]; its source counts as ``model``, for no row says it."""
        out = self._empty(len(states))
        out.known[:, self.num_actions :] = True
        out.confidence[:] = 1.0
        out.source[:] = SOURCES.index("model")
        return out

    def explain(self, states: np.ndarray) -> list[str]:
        """Nobody of the version speaks: the control does, in each of the packed states uint8[B, S]."""
        return ["uniform: every skill alike"] * len(states)
