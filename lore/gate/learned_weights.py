"""Gate weights by least squares: how much more reward follows an advised decision where a signal is high.

Every trial (a decision with advice at hand, followed or not) gives one row of ``reward = a + b . s + f * (c + w . s)``
with the signals s and f = 1 where the advice was followed; w says how much more following pays where a signal is high.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["LearnedWeights"]

MIN_TRIALS = 200
"""Trials before anything is learned."""
MEMORY = 5000.0
"""Trials that are remembered (exponential forgetting)."""
RIDGE = 1.0
_EVERY = 50
_SIGNALS = 3
_SIZE = 2 * (_SIGNALS + 1)


class LearnedWeights:
    """Weighted least squares with forgetting; the weights are the positive parts of w, as far as they are certain.

    Args:
        weights: float[3] that sum to 1, of :data:`lore.gate.signals.SIGNALS`; they stand until enough is known and keep
        the share of what is not.

    Attributes:
        value: float64[3] >= 0 that sum to 1.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self.fixed = np.asarray(weights, np.float64)
        self.value = self.fixed.copy()
        self.products = np.zeros((_SIZE + 1, _SIZE + 1))  # of the row (1, s, f, f * s, reward)
        self.trials = 0

    def add(self, followed: bool, reward: float, signals: np.ndarray) -> None:
        """Take in the outcome of one trial: its reward, and the normalised signals float[3] at its decision."""
        base = np.concatenate([[1.0], np.asarray(signals, np.float64)])
        row = np.concatenate([base, float(followed) * base, [reward]])
        self.products = (1.0 - 1.0 / MEMORY) * self.products + np.outer(row, row)
        self.trials += 1
        if self.trials >= MIN_TRIALS and self.trials % _EVERY == 0:
            self._solve()

    def _solve(self) -> None:
        gram, target = self.products[:-1, :-1] + RIDGE * np.eye(_SIZE), self.products[:-1, -1]
        found = np.linalg.solve(gram, target)
        count = self.products[0, 0]
        rest = max(0.0, self.products[-1, -1] - found @ target) / max(1.0, count - _SIZE)
        error = np.sqrt(np.maximum(np.diag(np.linalg.inv(gram)) * rest, 1e-12))
        slope, noise = found[-_SIGNALS:], error[-_SIGNALS:]
        certain = np.array([math.erf(max(0.0, z) / math.sqrt(2.0)) for z in slope / noise])  # 0 for slopes that harm
        gain = np.maximum(slope, 0.0) * certain
        if gain.sum() > 0:
            trust = float(certain.max())
            self.value = (1.0 - trust) * self.fixed + trust * gain / gain.sum()
        else:
            self.value = self.fixed.copy()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"value": self.value.tolist(), "products": self.products.tolist(), "trials": self.trials}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.value, self.products = np.array(state["value"]), np.array(state["products"])
        self.trials = state["trials"]
