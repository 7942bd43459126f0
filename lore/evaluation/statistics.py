"""Statistics of a study over seeds, after Agarwal et al. 2021 (rliable): interquartile mean, probability of
improvement, stratified bootstrap; and how many steps an arm needs for the baseline's result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "bootstrap",
    "difference_of_means",
    "interquartile_mean",
    "learning_curve",
    "mean_of_runs",
    "nested_bootstrap",
    "probability_of_improvement",
    "steps_to",
]


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores of a study float[R, tasks] or float[R]: int(n / 4) are cut at each end."""
    x = np.sort(np.asarray(scores, np.float64).ravel())
    cut = int(0.25 * len(x))
    return float(x[cut : len(x) - cut].mean()) if len(x) else math.nan


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """P(X > Y) + P(X = Y) / 2 over pairs of runs (Mann-Whitney U / nm), mean over tasks; float[R, tasks] or [R]."""
    x, y = (np.asarray(v, np.float64) for v in (x, y))
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    if not len(x) or not len(y):
        return math.nan
    above, equal = x[:, None] > y[None], x[:, None] == y[None]
    return float((above + 0.5 * equal).mean((0, 1)).mean())


def mean_of_runs(runs: Sequence[np.ndarray]) -> float:
    """Mean over runs of each run's mean; float[E] of episodes per run."""
    return float(np.mean([run.mean() for run in runs]))


def difference_of_means(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> float:
    """:func:`mean_of_runs` of one arm less that of another."""
    return mean_of_runs(x) - mean_of_runs(y)


def bootstrap(
    statistic: Callable[..., float], *groups: np.ndarray, n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of ``statistic(*groups)`` when the runs (first axis) of every group are drawn again."""
    data = [np.asarray(g, np.float64) for g in groups]
    if any(len(g) == 0 for g in data):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    draws = [statistic(*(g[rng.integers(0, len(g), len(g))] for g in data)) for _ in range(n)]
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def nested_bootstrap(
    statistic: Callable[..., float],
    *groups: Sequence[np.ndarray],
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of ``statistic(*groups)``: runs are drawn again, then episodes within each drawn run.

    Args:
        groups: per arm, one float[E] of episode scores for every run; the statistic gets them in this form.
    """
    data = [[np.asarray(run, np.float64) for run in group] for group in groups]
    if any(not group or any(len(run) == 0 for run in group) for group in data):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)

    def again(group: list[np.ndarray]) -> list[np.ndarray]:
        at = rng.integers(0, len(group), len(group)).tolist()
        return [group[r][rng.integers(0, len(group[r]), len(group[r]))] for r in at]

    draws = [statistic(*(again(group) for group in data)) for _ in range(n)]
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def learning_curve(steps: Sequence[float], returns: Sequence[float], grid: np.ndarray, window: int = 10) -> np.ndarray:
    """Mean return of the last ``window`` episodes that had ended at each step of the grid; NaN before the first."""
    at, x = np.asarray(steps, np.float64), np.asarray(returns, np.float64)
    total = np.concatenate([[0.0], np.cumsum(x)])
    ended = np.searchsorted(at, grid, side="right")
    began = np.maximum(0, ended - window)
    return np.where(ended > 0, (total[ended] - total[began]) / np.maximum(1, ended - began), np.nan)


def steps_to(level: float, grid: np.ndarray, curve: np.ndarray) -> float | None:
    """First step of the grid at which a curve is at or above ``level``; None when it never is."""
    reached = np.flatnonzero(np.nan_to_num(curve, nan=-np.inf) >= level)
    return float(grid[reached[0]]) if len(reached) else None
