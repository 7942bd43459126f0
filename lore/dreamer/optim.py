"""The sum that an update descends, and LaProp with adaptive gradient clipping: gradients -> AGC -> RMS normalisation ->
momentum -> step.

The order and the constants are danijar/dreamerv3's. Everything stays on the device: the step count, the warm-up and
the answer to "were all gradients finite" are tensors, so an update never waits for the device and can be captured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lore_datasets.errors import SchemeMismatch

__all__ = ["LaProp", "total_loss"]


def total_loss(losses: Mapping[str, Tensor], scales: Mapping[str, float | Tensor]) -> Tensor:
    """Sum over names of scale * mean(loss), a 0-d tensor."""
    return torch.stack([scales[name] * value.mean() for name, value in losses.items()]).sum()


class LaProp:
    """One optimiser for world model, actor and critic.

    Args:
        named: (name, parameter) pairs; the names are those of the state's entries.
        lr: step size after the warm-up.
        warmup: updates over which the step size rises linearly from 0 (the first update has 0).
        agc, floor: each tensor's gradient norm is cut to agc * max(floor, norm of the tensor).
        beta1, beta2, eps: momentum, RMS decay, and what keeps 0 / 0 at 0.

    Attributes:
        finite: 0-d bool tensor, whether the last update's gradients were all finite; if not, it changed nothing.
        bad: 0-d int64 tensor, non-finite updates in a row.
        grad_norm: 0-d tensor, global norm of the last gradients before clipping.
    """

    def __init__(
        self, named: Iterable[tuple[str, nn.Parameter]], lr: float = 4e-5, *, warmup: int = 1000, agc: float = 0.3,
        floor: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-20,
    ) -> None:  # fmt: skip
        pairs = [(name, p) for name, p in named if p.requires_grad]
        self.names = [name for name, _ in pairs]
        self.params: list[Tensor] = [p for _, p in pairs]
        assert self.params and len(set(self.names)) == len(self.names), "parameters with distinct names are needed"
        self.lr, self.warmup, self.agc, self.floor = lr, warmup, agc, floor
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        device = self.params[0].device
        self.count = torch.zeros((), dtype=torch.float64, device=device)  # updates taken
        self.square = [torch.zeros_like(p, dtype=torch.float32) for p in self.params]
        self.momentum = [torch.zeros_like(p, dtype=torch.float32) for p in self.params]
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.bad = torch.zeros((), dtype=torch.int64, device=device)
        self.grad_norm = torch.zeros((), device=device)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for p in self.params:
            p.grad = None

    def rate(self) -> Tensor:
        """Step size of the next update, a 0-d float64 tensor."""
        return self.lr * (self.count / max(1, self.warmup)).clamp(max=1.0) if self.warmup else self.count * 0 + self.lr

    @torch.no_grad()
    def step(self) -> None:
        """Take one update from the parameters' gradients (None counts as zero); a no-op when one is not finite."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.float() for p in self.params]
        norms = torch.stack(torch._foreach_norm(grads))
        sizes = torch.stack(torch._foreach_norm(self.params))
        self.grad_norm.copy_(norms.square().sum().sqrt())
        self.finite.copy_(torch.isfinite(self.grad_norm))
        self.bad.copy_(torch.where(self.finite, 0, self.bad + 1))
        shrink = 1.0 / (norms / (self.agc * sizes.clamp(min=self.floor))).clamp(min=1.0)
        grads = torch._foreach_mul(grads, list(shrink.unbind()))
        lr = self.rate()
        self.count += self.finite
        # A bad update: no decay, no input, no step. NaN times zero is NaN, so the entries themselves are replaced too.
        grads = [torch.where(self.finite, g, 0.0) for g in grads]
        decay1 = torch.where(self.finite, self.beta1, 1.0)
        decay2 = torch.where(self.finite, self.beta2, 1.0)
        torch._foreach_mul_(self.square, decay2.float())
        torch._foreach_addcmul_(self.square, grads, grads, 1.0 - self.beta2)
        scale = torch._foreach_mul(self.square, (1.0 / (1.0 - self.beta2 ** self.count.clamp(min=1.0))).float())
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, self.eps)
        torch._foreach_div_(grads, scale)
        torch._foreach_mul_(self.momentum, decay1.float())
        torch._foreach_add_(self.momentum, grads, alpha=1.0 - self.beta1)
        size = torch.where(self.finite, lr / (1.0 - self.beta1 ** self.count.clamp(min=1.0)), 0.0)
        torch._foreach_sub_(self.params, torch._foreach_mul(self.momentum, size.float()))

    @torch.no_grad()
    def restart_rows(self, name: str, rows: list[int]) -> None:
        """Forget the moments of some rows of one parameter. Their mean square becomes that of the other rows, since the
        correction of a young mean is taken from the count of all updates."""
        square, momentum = (values[self.names.index(name)] for values in (self.square, self.momentum))
        others = [row for row in range(len(square)) if row not in rows]
        square[rows] = square[others].mean()
        momentum[rows] = 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """The live state as flat tensors: ``count``, ``bad``, ``square.<name>``, ``momentum.<name>``."""
        out = {"count": self.count, "bad": self.bad}
        out |= {f"square.{name}": value for name, value in zip(self.names, self.square, strict=True)}
        out |= {f"momentum.{name}": value for name, value in zip(self.names, self.momentum, strict=True)}
        return out

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`state_dict`; SchemeMismatch when names or shapes differ, and then nothing is changed."""
        own = self.state_dict()
        wrong = sorted(set(own) ^ set(state)) or [n for n in own if own[n].shape != state[n].shape]
        if wrong:
            raise SchemeMismatch(
                f"optimiser state does not fit this network: {', '.join(wrong[:3])}", kept="this network"
            )
        for name, value in own.items():
            value.copy_(state[name])
