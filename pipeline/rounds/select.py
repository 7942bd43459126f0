"""Which states are worth a question: by rarity of their goal key, by how often what no row covers was visited, by the
learner's uncertainty, and by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.errors import BadInput
from lore_datasets.keys import fine_keys, goal_keys
from lore_datasets.schema import STATE_SOURCES
from lore_datasets.types import SymbolicState

__all__ = ["select"]

_COMPETENT = tuple(STATE_SOURCES.index(name) for name in ("rules", "half_and_half", "agent"))


def select(
    states: SymbolicState,
    environment: Environment,
    budget: int,
    *,
    source: np.ndarray | None = None,
    competent: Sequence[int] = _COMPETENT,
    competent_weight: float = 2.0,
    novelty: float = 0.5,
    coverage: float = 0.0,
    unsure: float = 0.0,
    covered: np.ndarray | None = None,
    uncertainty: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    known: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """int64 indices, ascending, of at most ``budget`` states with distinct fine keys; the arguments alone decide.

    Shares of the budget, taken one after the other; what is left, or what a share cannot use, is drawn at random:

    - ``coverage``: one state of each goal key that is not in ``covered`` (int64, the keys of the present version), the
      keys that ``states`` visit most often first, then a second of each, and so on. States count as often as they
      stand in ``states``: leave repeated visits in.
    - ``unsure``: drawn by ``uncertainty`` (float[N], NaN counts 0).
    - ``novelty``: one state of each goal key, rarest keys first, then a second of each, and so on.

    All draws are without replacement, by ``competent_weight`` for sources in ``competent`` and 1 for others, times
    ``weight`` (float[N] >= 0; 0 leaves a state out). Fine keys in ``known`` (already advised) are left out.
    """
    n = len(states)
    _check(n, budget, (novelty, coverage, unsure), competent_weight, weight, uncertainty)
    if not n:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng(seed)
    weights = np.ones(n) if weight is None else np.asarray(weight, float).copy()
    if source is not None:
        weights[np.isin(source, list(competent))] *= competent_weight
    doubt = np.zeros(n) if uncertainty is None else np.nan_to_num(np.asarray(uncertainty, float), nan=0.0)
    goal = goal_keys(states, environment)
    left = _candidates(fine_keys(states, environment), weights, doubt, known, rng)
    budget = min(budget, len(left))
    parts = []
    if coverage:
        open_keys = left if covered is None else left[~np.isin(goal[left], covered)]
        parts.append(_by_goal(open_keys, goal, weights, rng, rarest=False)[: round(budget * coverage)])
        left = np.setdiff1d(left, parts[-1])
    if unsure:
        parts.append(_weighted(left, (weights * doubt)[left], round(budget * unsure), rng))
        left = np.setdiff1d(left, parts[-1])
    parts.append(_by_goal(left, goal, weights, rng, rarest=True)[: round(budget * novelty)])
    left = np.setdiff1d(left, parts[-1])
    parts.append(_weighted(left, weights[left], budget - sum(map(len, parts)), rng))
    return np.sort(np.concatenate(parts)).astype(np.int64)[:budget]


def _check(
    n: int,
    budget: int,
    shares: tuple[float, ...],
    competent_weight: float,
    weight: np.ndarray | None,
    uncertainty: np.ndarray | None,
) -> None:
    if budget < 1 or competent_weight < 0 or min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise BadInput(
            f"select: budget {budget}, competent_weight {competent_weight}, novelty, coverage, unsure {shares}",
            hint="budget at least 1, the weight and the shares 0 or more, the shares at most 1 together",
        )
    if weight is not None:
        weight = np.asarray(weight, float)
        if weight.shape != (n,) or not np.isfinite(weight).all() or (weight < 0).any():
            raise BadInput(f"select: weight must be {n} finite numbers >= 0")
    if uncertainty is not None:
        uncertainty = np.asarray(uncertainty, float)
        if uncertainty.shape != (n,) or np.isinf(uncertainty).any() or (uncertainty < 0).any():
            raise BadInput(f"select: uncertainty must be {n} numbers >= 0, NaN where unknown")


def _candidates(
    fine: np.ndarray, weights: np.ndarray, doubt: np.ndarray, known: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """One index of each fine key that is neither known nor of weight 0, the heaviest of equal ones; ascending."""
    mixed = rng.permutation(len(fine))
    mixed = mixed[np.argsort(-(weights * (1 + doubt))[mixed], kind="stable")]
    _, first = np.unique(fine[mixed], return_index=True)
    out = np.sort(mixed[first])
    if known is not None and len(known):
        out = out[~np.isin(fine[out], known)]
    return out[weights[out] > 0]


def _by_goal(
    candidates: np.ndarray, goal: np.ndarray, weights: np.ndarray, rng: np.random.Generator, *, rarest: bool
) -> np.ndarray:
    """Candidates in the order: one of every goal key, then a second of every key, ...

    In each turn the keys that ``goal`` holds least often come first, or (not ``rarest``) those it holds most often.
    """
    if not len(candidates):
        return candidates
    _, place, counts = np.unique(goal, return_inverse=True, return_counts=True)
    group = place[candidates]
    draw = rng.exponential(size=len(candidates)) / weights[candidates]
    by_group = np.lexsort((draw, group))
    starts = np.r_[True, group[by_group][1:] != group[by_group][:-1]]
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(by_group)), 0))
    turn = np.empty(len(candidates), np.int64)
    turn[by_group] = np.arange(len(by_group)) - begin
    often = counts[group] if rarest else -counts[group]
    return candidates[np.lexsort((draw, often, turn))]


def _weighted(candidates: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``count`` candidates of weight > 0 without replacement, by weight (exponential races)."""
    candidates, weights = candidates[weights > 0], weights[weights > 0]
    if count <= 0 or not len(candidates):
        return candidates[:0]
    if count >= len(candidates):
        return candidates
    race = rng.exponential(size=len(candidates)) / weights
    return candidates[np.argpartition(race, count)[:count]]
