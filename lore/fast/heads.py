"""Heads as one compiled call each, where a layer's weights fit the second-level cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lore.dreamer.dists import twohot_weights
from lore.dreamer.nets import Head, TwoHotHead
from lore.fast import kernels_head, kernels_twohot
from lore.fast.bundles import Dense, Layer
from lore.fast.packing import CACHED, fits, packed, raw
from lore.fast.parallel import run_shared, run_summed

__all__ = ["CompiledHead", "CompiledTwoHotHead"]


class CompiledHead(Head):
    """:class:`lore.dreamer.nets.Head` as one compiled call, forward and back."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> float32 [..., outputs]."""
        if _is_time_major(x):
            return self(x.transpose(0, 1)).transpose(0, 1)
        if not self._fits(x):
            return super().forward(x)
        pairs: Any = zip(self.mlp.linears, self.mlp.norms, strict=True)
        layers = [tensor for linear, norm in pairs for tensor in (linear.weight, linear.bias, norm.scale)]
        tensors = (*layers, self.out.weight, self.out.bias)
        rows = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            out = _Head.apply(self, rows, *tensors)
        else:
            out = _forward(self, rows, tensors, False)[0]
        return out.view(*x.shape[:-1], -1)

    def _fits(self, x: Tensor) -> bool:
        inputs, units = x.shape[-1], self.mlp.units
        return len(self.mlp.linears) > 0 and fits(x) and not (inputs % 8 or units % 8) and inputs * units <= CACHED


class CompiledTwoHotHead(CompiledHead, TwoHotHead):
    """:class:`lore.dreamer.nets.TwoHotHead` with its distribution in compiled loops too."""

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value [...] of logits [..., BINS], without gradient."""
        if _is_time_major(logits):
            return self.mean(logits.transpose(0, 1)).transpose(0, 1)
        out = torch.empty(logits.shape[:-1])
        arrays = (raw(logits.float()), raw(self.bins), raw(out))
        run_shared(kernels_twohot.twohot_mean, out.numel(), logits.numel(), *arrays)
        return out

    def loss(self, logits: Tensor, *targets: Tensor) -> Tensor:
        """Sum [...] of the cross-entropies of logits [..., BINS] to targets [...]."""
        if _is_time_major(logits):
            return self.loss(logits.transpose(0, 1), *(t.transpose(0, 1) for t in targets)).transpose(0, 1)
        wanted = torch.stack([target.detach().flatten() for target in targets])
        return _TwoHotLoss.apply(logits.float().flatten(0, -2), self.bins, wanted).view(logits.shape[:-1])


def _is_time_major(x: Tensor) -> bool:
    return x.dim() == 3 and not x.is_contiguous() and x.transpose(0, 1).is_contiguous()


class _TwoHotLoss(torch.autograd.Function):
    """Sum of two-hot cross-entropies of one set of logits [R, BINS] to several targets [n, R]."""

    @staticmethod
    def forward(ctx, logits: Tensor, bins: Tensor, targets: Tensor) -> Tensor:
        below, weight = twohot_weights(targets, bins)
        loss, total = torch.empty(len(logits)), torch.empty(len(logits))
        arrays = (raw(logits), len(bins), raw(below), raw(weight), raw(loss), raw(total))
        run_shared(kernels_twohot.twohot_loss, len(logits), logits.numel(), *arrays)
        ctx.save_for_backward(logits, total, below, weight)
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        logits, *kept = ctx.saved_tensors
        out = torch.empty(logits.shape)
        arrays = (raw(grad), raw(logits), logits.shape[1], *map(raw, kept), raw(out))
        run_shared(kernels_twohot.twohot_loss_back, len(logits), logits.numel(), *arrays)
        return out, None, None


def _padded(x: Tensor) -> Tensor:
    return F.pad(x.detach(), (0, -x.shape[-1] % 8))


class _Packed(NamedTuple):
    """A head's parameters as the loops take them."""

    layers: tuple[Layer, ...]
    last: Dense
    scales: tuple[np.ndarray, ...]
    transposed: tuple[np.ndarray, ...]  # weights [outputs, inputs] of all layers and the last
    sizes: list[int]  # numbers in weight, bias and scale of each layer, weight and bias of the last


def _pack(owner: Any, tensors: Sequence[Tensor]) -> _Packed:
    def make() -> _Packed:
        *given, weight, bias = (t.detach() for t in tensors)
        groups = list(zip(given[::3], given[1::3], given[2::3], strict=True))
        layers = tuple(Layer(raw(w.t()), raw(b), raw(scale)) for w, b, scale in groups)
        wide = _padded(weight.t())
        last = Dense(raw(wide), raw(_padded(bias)))
        transposed = tuple(raw(w) for w in (*given[::3], wide.t()))
        sizes = [len(x) for bundle in (*layers, last) for x in bundle]
        return _Packed(layers, last, tuple(layer.scale for layer in layers), transposed, sizes)

    return packed(owner, tensors, make)


def _forward(owner: Any, x: Tensor, tensors: Sequence[Tensor], keeps: bool) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The output of x [R, C]; with ``keeps`` also, for the backward pass, what the layers give before their norms
    [layers, R, units] and 1 / rms of it [layers, R].

    tensors: weight, bias and scale of each layer, weight and bias of the last.
    """
    p, rows, units, outputs = _pack(owner, tensors), len(x), len(tensors[1]), len(tensors[-1])
    many = len(p.layers) * rows if keeps else 0
    out = torch.empty(rows, outputs)
    before, inverse = np.empty(many * units, np.float32), np.empty(many, np.float32)
    arrays = (raw(x), x.shape[1], units, p.layers, p.last, outputs, raw(out), before, inverse)
    run_shared(kernels_head.forward, rows, rows * units, *arrays)
    return out, before, inverse


class _Head(torch.autograd.Function):
    """The compiled head with gradients."""

    @staticmethod
    def forward(ctx, owner: Any, x: Tensor, *tensors: Tensor) -> Tensor:
        out, ctx.before, ctx.inverse = _forward(owner, x, tensors, True)
        ctx.owner = owner
        ctx.save_for_backward(x, *tensors)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, *tensors = ctx.saved_tensors
        p, (rows, inputs), units, outputs = _pack(ctx.owner, tensors), x.shape, len(tensors[1]), len(tensors[-1])
        out = torch.empty(x.shape if ctx.needs_input_grad[1] else 0)
        arrays = (raw(grad), raw(x), inputs, units, p.scales, p.transposed, outputs, len(p.last.bias))
        kept = (ctx.before, ctx.inverse, raw(out))
        sums = run_summed(kernels_head.backward, rows, rows * units, sum(p.sizes), *arrays, *kept)
        *layers, weight, bias = sums.split(p.sizes)
        found = [v.view(-1, units).t().contiguous() if i % 3 == 0 else v for i, v in enumerate(layers)]
        last = weight.view(units, -1)[:, :outputs].t().contiguous()
        return None, out if len(out) else None, *found, last, bias[:outputs]
