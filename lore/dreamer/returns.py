"""Returns and their scale: lambda-returns with per-step continues and lambdas, imagination weights, percentile norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CONTINUE_SCALE", "LAMBDA", "PercentileNorm", "imagination_weights", "lambda_return"]

LAMBDA = 0.95
"""Trace of the lambda-return."""
CONTINUE_SCALE = 1.0 - 1.0 / 333.0
"""The discount, folded into the continue label (horizon 333)."""


def lambda_return(reward: Tensor, cont: Tensor, value: Tensor, lam: Tensor | float = LAMBDA) -> Tensor:
    """Lambda-returns [N, T-1] of reward, cont, value [N, T]; index 0 of reward, cont and lam is not read.

    ``R[i] = r[i+1] + c[i+1] * ((1 - lam[i+1]) * v[i+1] + lam[i+1] * R[i+1])`` with ``R[T-1] = v[T-1]``;
    lam 1 at a step means no bootstrap there, 0 cuts the trace there (a time limit).
    """
    assert reward.shape == cont.shape == value.shape, (reward.shape, cont.shape, value.shape)
    lam = lam.to(value.dtype).expand_as(value) if isinstance(lam, Tensor) else torch.full_like(value, lam)
    base = (reward + cont * (1.0 - lam) * value).unbind(-1)
    trace = (cont * lam).unbind(-1)
    last, out = value[..., -1], []
    for i in range(value.shape[-1] - 1, 0, -1):
        last = torch.addcmul(base[i], trace[i], last)
        out.append(last)
    return torch.stack(out[::-1], -1)


def imagination_weights(cont: Tensor) -> Tensor:
    """Probability [N, H+1] that the imagined step is reached: product of cont[0..i], the start's own included."""
    return cont.cumprod(-1)


class PercentileNorm(nn.Module):
    """Running range of returns: EMA (rate 0.01, from 0, no debiasing) of the 5th and 95th percentile, floor 1."""

    low: Tensor
    high: Tensor
    ends: Tensor

    def __init__(self, rate: float = 0.01, limit: float = 1.0) -> None:
        super().__init__()
        self.rate, self.limit = rate, limit
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("ends", torch.tensor([0.05, 0.95]), persistent=False)

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Take in returns of any shape (ignored where their percentile is not finite); the new scale, a 0-d tensor."""
        ends = torch.quantile(returns.float().flatten(), self.ends)
        for buffer, value in ((self.low, ends[0]), (self.high, ends[1])):
            buffer.copy_(torch.where(torch.isfinite(value), torch.lerp(buffer, value, self.rate), buffer))
        return self.scale()

    def scale(self) -> Tensor:
        """max(1, high - low), a 0-d tensor."""
        return (self.high - self.low).clamp(min=self.limit)
