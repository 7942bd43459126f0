"""Advice looked up for states, as it passes from the source to the gate and the options."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["SOURCES", "AdviceBatch"]

SOURCES = ("row", "program", "goal", "model", "none")
"""Where a piece of advice came from, in look-up order; index = value of ``AdviceBatch.source``."""


class AdviceBatch(NamedTuple):
    """Advice looked up for a batch of states, on the host: acting decides there."""

    logits: np.ndarray  # float32 [B, A+K] centred and clipped, over primitives + skills of the dataset
    known: np.ndarray  # bool [B, A+K] entries that the advice speaks about
    confidence: np.ndarray  # float32 [B], 0 where there is no advice
    source: np.ndarray  # int64 [B], index into SOURCES
    row: np.ndarray  # int64 [B], row of the table, -1 where the source is not the table
