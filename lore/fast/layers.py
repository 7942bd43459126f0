"""Dense layers, the norm with its activation and the one-hot layer of symbolic observations, compiled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lore.dreamer.nets import Linear, NormAct
from lore.dreamer.symbols import OneHotLinear
from lore.fast import kernels_rows
from lore.fast.packing import fits, raw
from lore.fast.parallel import run_shared, run_summed

__all__ = ["CompiledLinear", "CompiledNormAct", "CompiledOneHotLinear", "linear", "weight_gradient"]

_MANY = 512  # rows from which oneDNN's product is the faster one (by 1.2 to 2 on the CPUs measured)
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [R, I] times weight [O, I] (any strides) plus bias, without gradient; by oneDNN where that is faster."""
    return _onednn(x, weight, bias) if _is_large(x, weight) else F.linear(x, weight, bias)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad [R, O] transposed times x [R, I]: the gradient [O, I] of :func:`linear`'s weight, without gradient."""
    if not _is_large(x, grad):
        return grad.t() @ x
    if x.shape[1] < grad.shape[1]:  # the wider one goes second: 1.5 times faster
        return _onednn(x.t(), grad.t(), None).t().contiguous()
    return _onednn(grad.t(), x.t(), None)


def _is_large(x: Tensor, other: Tensor) -> bool:
    return len(x) >= _MANY and x.dtype == other.dtype == torch.float32 and _ONEDNN


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """Dense layer on rows by :func:`linear`."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, weight = ctx.saved_tensors
        own = linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        return own, weight_gradient(grad, x), grad.sum(0)


class CompiledLinear(Linear):
    """:class:`lore.dreamer.nets.Linear` by oneDNN where there are many rows."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        if not fits(x):
            return super().forward(x)
        rows = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            out = _Linear.apply(rows, self.weight, self.bias)
        else:
            out = linear(rows, self.weight, self.bias)
        return out.view(*x.shape[:-1], -1)


class _NormSilu(torch.autograd.Function):
    """silu(rms_norm(x) * scale) of rows [R, C], both directions in one pass each."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor) -> Tensor:
        out, inverse = _norm_silu(x, scale)
        ctx.save_for_backward(x, scale, inverse)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, scale, inverse = ctx.saved_tensors
        out, width = torch.empty(x.shape), len(scale)
        arrays = (raw(grad), raw(x), raw(scale), width, raw(inverse), raw(out))
        return out, run_summed(kernels_rows.norm_silu_rows_back, len(x), x.numel(), width, *arrays)


def _norm_silu(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """silu(rms_norm(x) * scale) of x [R, C], and 1 / rms [R]."""
    out, inverse = torch.empty(x.shape), torch.empty(len(x))
    arrays = (raw(x), raw(scale), len(scale), raw(out), raw(inverse))
    run_shared(kernels_rows.norm_silu_rows, len(x), x.numel(), *arrays)
    return out, inverse


class CompiledNormAct(NormAct):
    """:class:`lore.dreamer.nets.NormAct` in one pass over memory."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        full = x.float()  # bfloat16 under autocast
        rows = full.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            return _NormSilu.apply(rows, self.scale).view(x.shape).to(x.dtype)
        return _norm_silu(rows, self.scale)[0].view(x.shape).to(x.dtype)


class _GatheredSum(torch.autograd.Function):
    """Sum [N, O] of the rows ids int64 [N, C] of weight [R, O]."""

    @staticmethod
    def forward(ctx, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.shape = weight.shape
        ctx.save_for_backward(ids)
        return F.embedding_bag(ids, weight, mode="sum")

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (ids,), (rows, width) = ctx.saved_tensors, ctx.shape
        arrays = (raw(grad), raw(ids), width)
        found = run_summed(kernels_rows.scatter, len(ids), ids.numel() * width, rows * width, *arrays)
        return found.view(rows, width), None


class CompiledOneHotLinear(OneHotLinear):
    """:class:`lore.dreamer.symbols.OneHotLinear` whose gradient is added to the gathered rows by compiled loops."""

    def forward(self, ids: Tensor, vector: Tensor) -> Tensor:
        """ids int64 [N, cells], vector [N, V] -> [N, outputs]."""
        if not torch.is_grad_enabled():
            return super().forward(ids, vector)
        rows = _GatheredSum.apply(self.weight[: self.planes], ids + self.offsets)
        return torch.addmm(self.bias, vector, self.weight[self.planes :]) + rows
