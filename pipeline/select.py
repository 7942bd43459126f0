"""Which states are worth a question: half by rarity of their goal key, half drawn by who played them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.errors import BadInput
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.types import SymbolicState

__all__ = ["select"]


def select(
    states: SymbolicState,
    environment: Environment,
    budget: int,
    *,
    source: np.ndarray | None = None,
    competent: Sequence[int] = (1, 2),
    competent_weight: float = 2.0,
    novelty: float = 0.5,
    weight: np.ndarray | None = None,
    known: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """int64 indices, ascending, of at most ``budget`` states with distinct fine keys.

    ``novelty`` of the budget goes to one state of each goal key, rarest keys first, then a second of each, and so on;
    the rest is drawn without replacement by weight: ``competent_weight`` for sources in ``competent``, 1 for others,
    times ``weight`` (such as a learner's uncertainty, >= 0). Fine keys in ``known`` (already advised) are left out.
    """
    if budget < 1 or not 0 <= novelty <= 1 or competent_weight < 0:
        raise BadInput(f"select: budget {budget}, novelty {novelty}, competent_weight {competent_weight} out of range")
    n = len(states)
    weights = np.ones(n) if weight is None else np.asarray(weight, float).copy()
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise BadInput(f"select: weight must be {n} finite numbers >= 0")
    if not n:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    if source is not None:
        weights[np.isin(source, list(competent))] *= competent_weight
    fine, goal = fine_keys(states, environment), goal_keys(states, environment)
    mixed = rng.permutation(n)
    mixed = mixed[np.argsort(-weights[mixed], kind="stable")] if weight is not None else mixed
    _, first = np.unique(fine[mixed], return_index=True)
    candidates = np.sort(mixed[first])
    if known is not None and len(known):
        candidates = candidates[~np.isin(fine[candidates], known)]
    candidates = candidates[weights[candidates] > 0]
    budget = min(budget, len(candidates))
    novel = _by_rarity(candidates, goal, weights, rng)[: round(budget * novelty)]
    rest = np.setdiff1d(candidates, novel)
    missing = budget - len(novel)
    drawn = _weighted(rest, weights[rest], missing, rng)
    return np.sort(np.concatenate([novel, drawn])).astype(np.int64)


def _by_rarity(candidates: np.ndarray, goal: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Candidates in the order: the first of every goal key (rare keys first), the second of every key, ..."""
    if not len(candidates):
        return candidates
    _, place, counts = np.unique(goal, return_inverse=True, return_counts=True)
    group = place[candidates]
    draw = rng.random(len(candidates)) / np.maximum(weights[candidates], 1e-9)
    by_group = np.lexsort((draw, group))
    starts = np.r_[True, group[by_group][1:] != group[by_group][:-1]]
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(by_group)), 0))
    turn = np.empty(len(candidates), np.int64)
    turn[by_group] = np.arange(len(by_group)) - begin
    return candidates[np.lexsort((draw, counts[group], turn))]


def _weighted(candidates: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` candidates without replacement, by weight (exponential races)."""
    if count >= len(candidates):
        return candidates
    race = rng.exponential(size=len(candidates)) / weights
    return candidates[np.argpartition(race, count)[:count]] if count > 0 else candidates[:0]
