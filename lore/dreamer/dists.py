"""Distributions of the learner as pure functions on logits: unimixed categoricals, symexp two-hot, masked policies.

All of them work in float32 whatever dtype they are given; sampling takes uniform numbers or a torch.Generator.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "BINS", "FORBIDDEN", "categorical_entropy", "categorical_kl", "log_softmax", "policy_entropy", "policy_log_probs",
    "sample_index", "straight_through", "symexp", "symlog", "twohot_bins", "twohot_loss", "twohot_mean",
    "twohot_std", "twohot_weights", "unimix_probs",
]  # fmt: skip

BINS = 255
"""Bins of every two-hot head."""

FORBIDDEN = -50.0
"""Added to the logit of what is not allowed: e^-50 is lost in any sum of probabilities, and the exponential of far less
takes a CPU forty times as long, as do products of numbers as small as e^-90."""
_FEW = 8  # up to this many classes torch's CPU softmax is several times faster along another axis than the last


def symlog(x: Tensor) -> Tensor:
    """sign(x) * ln(1 + |x|), elementwise."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of :func:`symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


# ---------------------------------------------------------------------------------------------------- categoricals
def _along(softmax: Callable[[Tensor, int], Tensor], logits: Tensor) -> Tensor:
    """``softmax(logits, axis)`` over the last axis, taken along another one where that is faster."""
    if logits.shape[-1] <= _FEW and not logits.is_cuda:
        return softmax(logits.transpose(-1, -2).contiguous(), -2).transpose(-1, -2)
    return softmax(logits, -1)


def log_softmax(logits: Tensor) -> Tensor:
    """ln softmax(logits) over the last axis, float32."""
    return _along(torch.log_softmax, logits.float())


def unimix_probs(logits: Tensor, unimix: float = 0.01) -> Tensor:
    """(1 - unimix) * softmax(logits) + unimix / K over the last axis, float32."""
    probs = _along(torch.softmax, logits.float())
    return probs if unimix == 0.0 else (1.0 - unimix) * probs + unimix / logits.shape[-1]


def sample_index(probs: Tensor, uniform: Tensor) -> Tensor:
    """Inverse CDF: probs [..., K], uniform [...] in [0, 1) -> int64 [...]; probability 0 is never drawn."""
    cdf = probs.cumsum(-1)
    # Scaling by the last partial sum keeps rounding of the sum from ever pointing past the last possible entry.
    return (cdf <= uniform.unsqueeze(-1) * cdf[..., -1:]).sum(-1)


def straight_through(probs: Tensor, uniform: Tensor) -> Tensor:
    """One-hot sample [..., K] of probs [..., K] whose gradient is that of probs."""
    index = sample_index(probs.detach(), uniform)
    classes = torch.arange(probs.shape[-1], device=probs.device)
    onehot = (index.unsqueeze(-1) == classes).to(probs.dtype)
    return onehot + (probs - probs.detach()) if probs.requires_grad else onehot


def categorical_entropy(probs: Tensor) -> Tensor:
    """Entropy in nats of probs [..., S, K], summed over S: [...]."""
    return -torch.special.xlogy(probs, probs).sum((-2, -1))


def categorical_kl(probs: Tensor, other: Tensor) -> Tensor:
    """KL(probs || other) in nats of [..., S, K], summed over the S categoricals: [...]; both must be positive."""
    return (probs * (probs.log() - other.log())).sum((-2, -1))


# ---------------------------------------------------------------------------------------------------- policies
def policy_log_probs(logits: Tensor, mask: Tensor | None = None, unimix: float = 0.0) -> Tensor:
    """Log-probabilities [..., A] of a policy; mask bool [..., A] (True = allowed), unimix over allowed entries."""
    logits = logits.float()
    if mask is not None:
        logits = logits + FORBIDDEN * (1.0 - mask.float())
    log_probs = logits.log_softmax(-1)
    if unimix == 0.0:
        return log_probs
    probs = (1.0 - unimix) * log_probs.exp()
    if mask is None:
        return (probs + unimix / logits.shape[-1]).log()
    share = unimix / mask.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(mask, (probs + share).clamp(min=1e-38).log(), logits.new_tensor(FORBIDDEN))


def policy_entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats [...] of log-probabilities [..., A]; forbidden entries count 0."""
    return -(log_probs.exp() * log_probs).sum(-1)


# ---------------------------------------------------------------------------------------------------- symexp two-hot
def twohot_bins(device: torch.device | str | None = None, bins: int = BINS) -> Tensor:
    """Bin values float32 [bins]: symexp-spaced over +-symexp(20), exactly antisymmetric, 0 in the centre."""
    half = symexp(torch.linspace(-20.0, 0.0, (bins - 1) // 2 + 1, device=device))
    return torch.cat([half, -half[:-1].flip(0)])


def twohot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected value [...] of logits [..., 255], summed in antisymmetric pairs: uniform logits give exactly 0."""
    probs = logits.float().softmax(-1)
    middle = bins.shape[0] // 2
    # A product and a sum, not a matmul: autocast would run that in bfloat16.
    return ((probs[..., middle + 1 :] - probs[..., :middle].flip(-1)) * bins[middle + 1 :]).sum(-1)


def twohot_std(logits: Tensor, bins: Tensor) -> Tensor:
    """Standard deviation [...] of the two-hot distribution in symlog units (raw values would be all tail)."""
    probs, values = logits.float().softmax(-1), symlog(bins)
    mean = (probs * values).sum(-1, keepdim=True)
    return (probs * (values - mean).square()).sum(-1).sqrt()


def twohot_weights(value: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Lower bin (int64 [...]) and weight of the bin above (float32 [...]): linear in raw value, clipped to the ends."""
    value = value.float().clamp(bins[0], bins[-1])
    below = (torch.searchsorted(bins, value, right=True) - 1).clamp(0, bins.shape[0] - 2)
    low = bins[below]
    return below, (value - low) / (bins[below + 1] - low)


def twohot_loss(logits: Tensor, bins: Tensor, *targets: Tensor) -> Tensor:
    """Sum over targets [...] of the cross-entropy of logits [..., 255] to each two-hot target: float32 [...]."""
    log_probs, loss = logits.float().log_softmax(-1), torch.zeros(logits.shape[:-1], device=logits.device)
    for target in targets:
        below, above = twohot_weights(target.detach(), bins)
        low, high = log_probs.gather(-1, torch.stack([below, below + 1], -1)).unbind(-1)
        loss = loss - ((1.0 - above) * low + above * high)
    return loss
