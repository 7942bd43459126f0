"""A library of skills as a whole: how well each fits a set of states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lore.options.interpreter import propose
from lore_datasets.errors import BadInput
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import Skill
from lore_datasets.vocab import Vocab

__all__ = ["applicable", "fit"]


def applicable(skills: Sequence[Skill], states: np.ndarray, vocab: Vocab) -> np.ndarray:
    """bool[N, K]: which skill can act in which packed state uint8[N, S]."""
    states = np.asarray(states)
    if states.ndim != 2:
        raise BadInput(f"states of shape {list(states.shape)}, expected uint8[N, S]")
    out = np.zeros((len(states), len(skills)), bool)
    for row, state in zip(out, states, strict=True):
        row[:] = propose(skills, StateView(state, vocab)) >= 0
    return out


def fit(skills: Sequence[Skill], states: np.ndarray, vocab: Vocab, success: np.ndarray | None = None) -> np.ndarray:
    """float64[K] in 0..1: share of the packed states uint8[N, S] in which a skill can act, times its success rate.

    ``success`` float[K] holds measured success rates, NaN (or no array) where there is none yet, which counts as 1.
    """
    share = applicable(skills, states, vocab).mean(0) if len(states) else np.zeros(len(skills))
    return share if success is None else share * np.nan_to_num(np.asarray(success, float), nan=1.0)
