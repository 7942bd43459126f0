"""Model disagreement: small one-step heads that predict the next stochastic latent; where they differ, the model
has not been.

The signal is the variance of their probabilities, as in Sekar et al. 2020 (Plan2Explore, section 3.2). They read
detached features: no gradient of theirs reaches the world model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from lore.dreamer.dists import log_softmax, unimix_probs
from lore.dreamer.nets import Linear, init_weight
from lore.dreamer.rssm import UNIMIX
from lore.dreamer.types import Latent, Observed
from lore.sizes import Size

if TYPE_CHECKING:
    from lore.dreamer.rssm import RSSM

__all__ = ["DEPTH", "HEADS", "MISSES", "Ensemble", "OpenLoop", "trusted_limit"]

HEADS = 5
"""Heads (K)."""
DEPTH = 12
"""Steps to which open-loop predictions are checked against replay; deeper steps use the last one's limit."""
MISSES = 0.1
"""Share of misses that the predictions under a limit may have."""
STARTS = 96


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

    @torch.no_grad()
    def open_loop(
        self, rssm: RSSM, seen: Observed, action: Tensor, is_first: Tensor, generator: Generator | None
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
            doubt = doubt + self.disagreement(latent.features(), step)
            latent = rssm.imagine_step(latent, step, generator)
            alive = alive & ~is_first[:, columns + i + 1].flatten()
            dreamt, real = unimix_probs(rssm.prior(latent.deter), UNIMIX), truth[:, columns + i + 1].flatten(0, 1)
            found.append((doubt, 0.5 * (dreamt - real).abs().sum(-1).mean(-1), alive))
        return OpenLoop(*(torch.stack(x) for x in zip(*found, strict=True)))
