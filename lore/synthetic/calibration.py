"""How far an open-loop prediction is trusted: limits of the ensemble's disagreement, from what replayed steps showed.

A limit needs many predictions: of eight, the one that the heads agree on most may miss, and no prediction would ever be
trusted again. So each depth keeps its last predictions over many batches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from lore.dreamer.disagreement import Ensemble
from lore.dreamer.dists import unimix_probs
from lore.dreamer.rssm import RSSM, UNIMIX
from lore.dreamer.types import Latent, Observed

__all__ = ["DEPTH", "LEAST", "MISSES", "POOL", "QUANTILE", "Calibration", "OpenLoop", "open_loop", "trusted_limit"]

DEPTH = 12
"""Steps to which open-loop predictions are checked against replay; deeper steps use the last one's limit."""
MISSES = 0.1
"""Share of misses that the predictions under a limit may have."""
STARTS = 96
"""Replayed states at most, from which a batch is predicted."""

POOL = 512
"""Predictions kept for each depth."""
LEAST = 64
"""Predictions under which nothing is said, hence nothing trusted."""
QUANTILE = 0.95
"""A prediction misses when its error is above this quantile of the one-step errors."""


class OpenLoop(NamedTuple):
    """Predictions of up to DEPTH steps from S replayed states, by actions alone."""

    doubt: Tensor  # [DEPTH, S], disagreement summed up to each step
    error: Tensor  # [DEPTH, S], distance 0..1 to what was then seen
    alive: Tensor  # bool [DEPTH, S], the episode went on up to there


def trusted_limit(disagreement: Tensor, missed: Tensor, misses: float = MISSES) -> Tensor:
    """Largest disagreement (0-d) up to which at most the share ``misses`` of the predictions missed; 0 where even the
    most agreed ones do. disagreement, missed (bool): [N]."""
    order = disagreement.argsort()
    share = missed[order].float().cumsum(0) / torch.arange(1, len(order) + 1, device=order.device)
    fits = torch.nonzero(share <= misses)
    return disagreement[order[fits[-1, 0]]] if len(fits) else disagreement.new_zeros(())


@torch.no_grad()
def open_loop(
    ensemble: Ensemble, rssm: RSSM, seen: Observed, action: Tensor, is_first: Tensor, generator: Generator | None
) -> OpenLoop:
    """Predict replayed steps from actions alone, and compare with the posteriors.

    The error of a prediction is the total variation distance, 0 to 1, between the prior that was dreamt and the
    posterior that saw, mean over categoricals.

    Args:
        seen: posteriors [B, T, ...], before the update on them. action: int64 [B, T]. is_first: bool [B, T].
    """
    depth = min(DEPTH, action.shape[1] - 1)
    columns = torch.arange(0, action.shape[1] - depth, depth)[: max(1, STARTS // len(action))]
    latent = Latent(seen.latent.deter[:, columns].flatten(0, 1), seen.latent.stoch[:, columns].flatten(0, 1))
    truth = unimix_probs(seen.post_logits, UNIMIX)
    alive = torch.ones(len(latent.deter), dtype=torch.bool, device=action.device)
    doubt, found = latent.deter.new_zeros(len(alive)), []
    for i in range(depth):
        step = action[:, columns + i].long().flatten()
        doubt = doubt + ensemble.disagreement(latent.features(), step)
        latent = rssm.imagine_step(latent, step, latent.numbers(generator))
        alive = alive & ~is_first[:, columns + i + 1].flatten()
        dreamt, real = unimix_probs(rssm.prior(latent.deter), UNIMIX), truth[:, columns + i + 1].flatten(0, 1)
        found.append((doubt, 0.5 * (dreamt - real).abs().sum(-1).mean(-1), alive))
    return OpenLoop(*(torch.stack(x) for x in zip(*found, strict=True)))


class Calibration:
    """Disagreement and error of the last :data:`POOL` open-loop predictions of each depth.

    Attributes:
        limits: [DEPTH], at i the summed disagreement of i + 1 steps up to which at most the share
            :data:`MISSES` of the predictions missed; 0 until enough is known.
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
