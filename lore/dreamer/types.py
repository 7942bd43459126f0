"""Tensor bundles that pass between the learner's parts, and the shape alphabet of its signatures.

Axes: B sequences or environments, T steps of a sequence, N flattened B*T, H imagined steps, A primitive actions,
M option slots, S categoricals, K classes of one categorical, D recurrent state, E tokens, F features = D + S*K.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

__all__ = ["AdviceBatch", "Imagined", "Latent", "Observed", "SOURCES"]

SOURCES = ("row", "program", "goal", "model", "none")
"""Where a piece of advice came from, in look-up order; index = value of ``AdviceBatch.source``."""


class Latent(NamedTuple):
    """RSSM state."""

    deter: Tensor  # float32 [..., D]
    stoch: Tensor  # float32 [..., S, K], one-hot

    def features(self) -> Tensor:
        """concat(deter, flatten(stoch)): [..., D + S*K]."""
        import torch

        return torch.cat([self.deter, self.stoch.flatten(-2)], -1)


class Observed(NamedTuple):
    """What the RSSM made of a sequence."""

    latent: Latent  # posterior, [B, T, ...]
    post_logits: Tensor  # [B, T, S, K]
    prior_logits: Tensor  # [B, T, S, K]


class Imagined(NamedTuple):
    """A batch of imagined trajectories; index 0 is the start state."""

    features: Tensor  # [N, H+1, F]
    logits: Tensor  # [N, H, A+M] of the policy that acted, with the actor's gradient
    action: Tensor  # int64 [N, H], primitive action executed
    decision: Tensor  # int64 [N, H], entry of the (extended) action space that the actor chose; valid where is_decision
    is_decision: Tensor  # bool [N, H+1], the actor decides here (always true without options)
    mask: Tensor | None  # bool [N, H, A+M] entries that were allowed, None = all
    last: Latent  # latent after the last step


class AdviceBatch(NamedTuple):
    """Advice looked up for a batch of states, on the host: acting decides there."""

    logits: np.ndarray  # float32 [B, A+K] centred and clipped, over primitives + skills of the dataset
    known: np.ndarray  # bool [B, A+K] entries that the advice speaks about
    confidence: np.ndarray  # float32 [B], 0 where there is no advice
    source: np.ndarray  # int64 [B], index into SOURCES
    row: np.ndarray  # int64 [B], row of the table, -1 where the source is not the table
