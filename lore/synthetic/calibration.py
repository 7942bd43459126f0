"""How far an open-loop prediction is trusted: limits of the ensemble's disagreement, from what replayed steps showed.

A limit needs many predictions: of eight, the one that the heads agree on most may miss, and no prediction would ever be
trusted again. So each depth keeps its last predictions over many batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lore.dreamer.disagreement import DEPTH, trusted_limit

if TYPE_CHECKING:
    from lore.dreamer.disagreement import OpenLoop

__all__ = ["LEAST", "POOL", "QUANTILE", "Calibration"]

POOL = 512
"""Predictions kept for each depth."""
LEAST = 64
"""Predictions under which nothing is said, hence nothing trusted."""
QUANTILE = 0.95
"""A prediction misses when its error is above this quantile of the one-step errors."""


class Calibration:
    """Disagreement and error of the last :data:`POOL` open-loop predictions of each depth.

    Attributes:
        limits: [DEPTH], at i the summed disagreement of i + 1 steps up to which at most the share
            :data:`lore.dreamer.disagreement.MISSES` of the predictions missed; 0 until enough is known.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.doubt = torch.zeros(DEPTH, POOL, device=device)
        self.error = torch.zeros(DEPTH, POOL, device=device)
        self.count = [0] * DEPTH
        self.limits = torch.zeros(DEPTH, device=device)

    def add(self, found: OpenLoop) -> float:
        """Take predictions in, move the limits; the mean error of these, NaN where there are none or one is no number:
        of such a batch nothing is kept."""
        if not (torch.isfinite(found.error).all() and torch.isfinite(found.doubt).all()):
            return float("nan")
        total, count = 0.0, 0
        for depth in range(len(found.doubt)):
            alive = found.alive[depth]
            error = found.error[depth][alive]
            at = (torch.arange(len(error), device=error.device) + self.count[depth]) % POOL
            self.doubt[depth, at], self.error[depth, at] = found.doubt[depth][alive], error
            self.count[depth] += len(error)
            total, count = total + float(error.sum()), count + len(error)
        self._move()
        return total / count if count else float("nan")

    def _move(self) -> None:
        known = [min(n, POOL) for n in self.count]
        if known[0] < LEAST:
            return
        bound = torch.quantile(self.error[0, : known[0]], QUANTILE)
        for depth, n in enumerate(known):
            if n >= LEAST:
                self.limits[depth] = trusted_limit(self.doubt[depth, :n], self.error[depth, :n] > bound)

    def limit(self, depth: int) -> Tensor:
        """The limit (0-d) of the disagreement summed over steps 0..depth; deeper ones have the last one's."""
        return self.limits[min(depth, DEPTH - 1)]

    def tensors(self) -> dict[str, Tensor]:
        """Contents for a checkpoint."""
        return {"doubt": self.doubt, "error": self.error, "limits": self.limits}

    def load(self, tensors: dict[str, Tensor], count: list[int]) -> None:
        """Inverse of :meth:`tensors`; ``count``: predictions seen so far, per depth."""
        for name, value in tensors.items():
            getattr(self, name).copy_(value)
        self.count = list(count)
