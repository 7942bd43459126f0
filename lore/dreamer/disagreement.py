"""Model disagreement: small one-step heads that predict the next stochastic latent; where they differ, the model
has not been.

The signal is the variance of their probabilities, as in Sekar et al. 2020 (Plan2Explore, section 3.2). They read
detached features: no gradient of theirs reaches the world model.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lore.dreamer.dists import log_softmax, unimix_probs
from lore.dreamer.nets import Linear, init_weight
from lore.dreamer.rssm import UNIMIX
from lore.dreamer.types import Observed
from lore.sizes import Size

__all__ = ["HEADS", "Ensemble"]

HEADS = 5
"""Heads (K)."""


class Ensemble(nn.Module):
    """K heads: (features, action) -> probabilities of the next stochastic latent.

    Args:
        features: F. actions: primitive actions A. size: row of the size table. generator: draws the initial weights.
    """

    def __init__(self, features: int, actions: int, size: Size, generator: Generator | None = None) -> None:
        super().__init__()
        self.units, self.stoch, self.classes = min(64, size.units), size.stoch, size.classes
        flat = size.stoch * size.classes
        self.features_in = Linear(features, HEADS * self.units, generator)
        self.action_in = nn.Parameter(torch.empty(actions, HEADS * self.units))
        self.out = nn.Parameter(torch.empty(HEADS, self.units, flat))
        self.bias = nn.Parameter(torch.zeros(HEADS, 1, flat))
        init_weight(self.action_in, 1, generator)
        init_weight(self.out, self.units, generator)

    def _heads(self, hidden: Tensor) -> Tensor:
        """Logits [K, N, S, C] of hidden inputs [N, K * U]."""
        by_head = F.silu(hidden).view(len(hidden), HEADS, self.units).transpose(0, 1)
        return torch.baddbmm(self.bias, by_head, self.out).unflatten(-1, (self.stoch, self.classes))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Logits [K, N, S, C] of features [N, F] and action int64 [N]."""
        return self._heads(self.features_in(features) + self.action_in[action])

    @staticmethod
    def _variance(logits: Tensor) -> Tensor:
        probs = unimix_probs(logits, 0.0)
        return (probs - probs.mean(0)).square().mean(0).sum(-1).mean(-1)

    @torch.no_grad()
    def disagreement(self, features: Tensor, action: Tensor) -> Tensor:
        """Variance over heads of the class probabilities, summed over classes, mean over categoricals: [N]."""
        return self._variance(self(features, action))

    @torch.no_grad()
    def expected(self, features: Tensor, probs: Tensor) -> Tensor:
        """Disagreement [N] at features [N, F], averaged over the policy's primitive actions (probs [N, A], sum 1)."""
        rows, actions = probs.shape
        hidden = self.features_in(features)[:, None] + self.action_in  # [N, A, K * U]
        return (self._variance(self._heads(hidden.flatten(0, 1))).view(rows, actions) * probs).sum(-1)

    def loss(self, seen: Observed, action: Tensor, is_first: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy [B, T-1] to the next posterior, 0 across episode starts.

        Args:
            seen: posterior sequence [B, T, ...]. action: int64 [B, T], taken at each step. is_first: bool [B, T].
        """
        features = seen.latent.features().detach()[:, :-1]
        shape = features.shape[:2]
        target = unimix_probs(seen.post_logits.detach()[:, 1:], UNIMIX).flatten(0, 1)
        follows = (~is_first[:, 1:]).flatten()
        logits = self(features.flatten(0, 1), action[:, :-1].long().flatten())
        entropy = -(target * log_softmax(logits)).sum(-1).mean(-1)  # [K, N]
        with torch.no_grad():
            metrics = {"disagreement": self._variance(logits).mean()}
        return (entropy.mean(0) * follows).view(shape), metrics
