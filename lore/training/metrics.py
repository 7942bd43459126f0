"""Numbers of a run: running means, bootstrap intervals, the Crafter score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["Means", "bootstrap_interval", "crafter_score"]


def crafter_score(success_percent: np.ndarray) -> float:
    """exp(mean ln(1 + s_k)) - 1 with s_k in percent (Hafner 2021, section 4); one seed's rates float[K]; nan without
    achievements."""
    if len(success_percent) == 0:
        return math.nan
    return float(np.exp(np.mean(np.log1p(np.asarray(success_percent, np.float64)))) - 1.0)


def bootstrap_interval(values: np.ndarray, *, statistic=np.mean, n: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a statistic over the first axis; (nan, nan) for no values."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    draws = [statistic(values[rng.integers(0, len(values), len(values))], axis=0) for _ in range(n)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


class Means:
    """Running means of scalars between two rows of metrics."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, float]) -> None:
        """Take in one value per name; values that are not finite are left out."""
        for name, value in values.items():
            value = float(value)
            if math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means so far; starts afresh."""
        out = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return out

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
