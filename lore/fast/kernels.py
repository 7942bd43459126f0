"""Elementwise work of the learner fused for CPUs: one pass over memory where torch makes ten.

Every function here takes float32 tensors and has two bodies: compiled loops (numba) for tensors on a CPU, and plain
torch operations for every other device and where numba is missing. Tests hold them to each other. Loops share large
arrays between the threads of :mod:`lore.fast.parallel`; results depend on their number and on nothing else.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lore.fast.parallel import pool, threads

try:
    from lore.fast import kernels_cpu, kernels_rows
except ImportError:  # numba is missing: torch's own operations everywhere
    kernels_cpu = kernels_rows = None

loops: Any = kernels_cpu
row_loops: Any = kernels_rows

__all__ = [
    "gated_backward",
    "gated_forward",
    "gathered_sum",
    "is_fused",
    "linear",
    "mixed_norm_silu",
    "norm_silu_backward",
    "norm_silu_forward",
    "sample_index",
    "sample_onehot",
    "softmax_backward",
    "twohot_loss_backward",
    "twohot_loss_forward",
    "twohot_mean",
    "weight_gradient",
]

NORM_EPS = 1e-4
_SHARED = 2**17  # elements from which rows are shared between threads
_MANY = 512  # rows from which oneDNN's product is the faster one (by 1.2 to 2 on the CPUs measured)
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_fused(x: Tensor) -> bool:
    """Whether ``x`` is handled by the compiled loops."""
    return loops is not None and x.device.type == "cpu" and x.dtype == torch.float32


def _np(x: Tensor) -> np.ndarray:
    return (x.detach() if x.requires_grad else x).numpy()


def _shares(rows: int, elements: int) -> list[tuple[int, int]]:
    parts = threads() if elements >= _SHARED else 1
    cuts = [rows * i // parts for i in range(parts + 1)]
    return list(pairwise(cuts))


def run_shared(loop: Any, rows: int, elements: int, *arrays: Any) -> None:
    """``loop(low, high, *arrays)`` over all rows, in shares."""
    if elements < _SHARED:
        loop(0, rows, *arrays)
        return
    first, *others = _shares(rows, elements)
    waits = [pool(len(others)).submit(loop, low, high, *arrays) for low, high in others]
    loop(*first, *arrays)
    for wait in waits:
        wait.result()


def run_summed(loop: Any, rows: int, elements: int, width: int, *arrays: Any) -> Tensor:
    """As :func:`run_shared`; each share also adds to a row of its own [width], and their sum is returned."""
    first, *others = _shares(rows, elements)
    sums = np.zeros((1 + len(others), width), np.float32)
    waits = [pool(len(others)).submit(loop, low, high, *arrays, sums[1 + i]) for i, (low, high) in enumerate(others)]
    loop(*first, *arrays, sums[0])
    for wait in waits:
        wait.result()
    return torch.from_numpy(sums[0] if not others else sums.sum(0))


# ------------------------------------------------------------------------------------------------------ dense layers
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


def gathered_sum(weight: Tensor, ids: Tensor) -> Tensor:
    """Sum [N, O] of the rows ids int64 [N, C] of weight [R, O], differentiable."""
    if torch.is_grad_enabled() and is_fused(weight):
        return _GatheredSum.apply(weight, ids)
    return F.embedding_bag(ids, weight, mode="sum")


class _GatheredSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.shape = weight.shape
        ctx.save_for_backward(ids)
        return F.embedding_bag(ids, weight, mode="sum")

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (ids,), (rows, width) = ctx.saved_tensors, ctx.shape
        arrays = (_np(grad.contiguous().view(-1)), _np(ids.contiguous().view(-1)), width)
        found = run_summed(row_loops.scatter, len(ids), ids.numel() * width, rows * width, *arrays)
        return found.view(rows, width), None


def _is_large(x: Tensor, other: Tensor) -> bool:
    return x.shape[0] >= _MANY and x.device.type == "cpu" and x.dtype == other.dtype == torch.float32 and _ONEDNN


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


# ------------------------------------------------------------------------------------------------------ norm and silu
def norm_silu_forward(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """silu(rms_norm(x) * scale) of x [R, C], and 1 / rms [R]."""
    if is_fused(x):
        x = x.contiguous()
        out, inverse = torch.empty_like(x), torch.empty(x.shape[0])
        run_shared(loops.norm_silu, x.shape[0], x.numel(), _np(x), _np(scale), _np(out), _np(inverse))
        return out, inverse
    inverse = (x.square().mean(-1) + NORM_EPS).rsqrt()
    return F.silu(x * inverse.unsqueeze(-1) * scale), inverse


def norm_silu_backward(grad: Tensor, x: Tensor, scale: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x [R, C] and scale [C] for the gradient [R, C] of :func:`norm_silu_forward`'s output."""
    if is_fused(x):
        grad, x = grad.contiguous(), x.contiguous()
        out, arrays = torch.empty_like(x), (_np(grad), _np(x), _np(scale), _np(inverse))
        return out, run_summed(loops.norm_silu_back, len(x), x.numel(), len(scale), *arrays, _np(out))
    normed = x * inverse.unsqueeze(-1)
    out = torch.ops.aten.silu_backward(grad, normed * scale)
    product = out * normed
    along = (product * scale).mean(-1, keepdim=True)
    return (out * scale - normed * along) * inverse.unsqueeze(-1), product.sum(0)


def mixed_norm_silu(dense: Tensor, blocks: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For dense [N, D] and blocks [g, N, D/g]: their sum x [N, D], silu(rms_norm(x) * scale), 1 / rms [N]."""
    if is_fused(dense) and blocks.dtype == torch.float32:
        dense, blocks = dense.contiguous(), blocks.contiguous()
        x, out, inverse = torch.empty_like(dense), torch.empty_like(dense), torch.empty(len(dense))
        arrays = (_np(dense), _np(blocks), _np(scale), _np(x), _np(out), _np(inverse))
        run_shared(loops.mixed_norm_silu, len(dense), dense.numel(), *arrays)
        return x, out, inverse
    x = dense.float() + blocks.transpose(0, 1).flatten(1)
    return x, *norm_silu_forward(x, scale)


# ------------------------------------------------------------------------------------------------------ the recurrence
def gated_forward(gates: Tensor, deter: Tensor) -> Tensor:
    """Next deter [N, D] of deter [N, D] and gate inputs [g, N, 3 D/g] (reset, candidate, update inside each block)."""
    if is_fused(gates) and deter.dtype == torch.float32:
        gates, deter = gates.contiguous(), deter.contiguous()
        out = torch.empty_like(deter)
        run_shared(loops.gated, len(deter), gates.numel(), _np(gates), _np(deter), _np(out))
        return out
    rows, blocks = deter.shape[0], gates.shape[0]
    reset, candidate, update = gates.float().chunk(3, -1)
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    own = deter.view(rows, blocks, -1).transpose(0, 1)
    return torch.lerp(own, candidate, torch.sigmoid(update - 1.0)).transpose(0, 1).reshape(rows, -1)


def gated_backward(grad: Tensor, gates: Tensor, deter: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gates [g, N, 3 D/g] and deter [N, D] for the gradient [N, D] of :func:`gated_forward`'s output."""
    if is_fused(gates):
        grad, gates, deter = grad.contiguous(), gates.contiguous(), deter.contiguous()
        out, own = torch.empty_like(gates), torch.empty_like(deter)
        run_shared(loops.gated_back, len(deter), gates.numel(), *map(_np, (grad, gates, deter, out, own)))
        return out, own
    rows, blocks = deter.shape[0], gates.shape[0]
    grad, own = (v.view(rows, blocks, -1).transpose(0, 1) for v in (grad, deter))
    reset, candidate, update = gates.float().chunk(3, -1)
    reset, update = reset.sigmoid(), (update - 1.0).sigmoid()
    bounded = torch.tanh(reset * candidate)
    inner = grad * update * (1.0 - bounded.square())
    parts = (inner * candidate * reset * (1.0 - reset), inner * reset, grad * (bounded - own) * update * (1.0 - update))
    return torch.cat(parts, -1), (grad * (1.0 - update)).transpose(0, 1).reshape(rows, -1)


# ------------------------------------------------------------------------------------------------------ categoricals
def sample_index(logits: Tensor, uniform: Tensor, unimix: float) -> Tensor:
    """int64 draws [...] from the unimixed softmax of logits [..., K] by inverse CDF at uniform [...], no gradient."""
    if is_fused(logits):
        rows, logits = uniform.numel(), logits.detach().contiguous()
        out = torch.empty(uniform.shape, dtype=torch.int64)
        arrays = (_np(logits.view(rows, -1)), _np(uniform.reshape(-1)), unimix, _np(out.view(-1)))
        run_shared(loops.sample_index, rows, logits.numel(), *arrays)
        return out
    probs = (1.0 - unimix) * logits.detach().float().softmax(-1) + unimix / logits.shape[-1]
    cdf = probs.cumsum(-1)
    # Scaling by the last partial sum keeps rounding of the sum from ever pointing past the last possible entry.
    return (cdf <= uniform.unsqueeze(-1) * cdf[..., -1:]).sum(-1)


def sample_onehot(logits: Tensor, uniform: Tensor, unimix: float) -> Tensor:
    """As :func:`sample_index`, one-hot float32 [..., K]."""
    if is_fused(logits):
        rows, logits = uniform.numel(), logits.detach().contiguous()
        out = torch.zeros_like(logits)
        arrays = (_np(logits.view(rows, -1)), _np(uniform.reshape(-1)), unimix, _np(out.view(rows, -1)))
        run_shared(loops.sample, rows, logits.numel(), *arrays)
        return out
    classes = torch.arange(logits.shape[-1], device=logits.device)
    return (sample_index(logits, uniform, unimix).unsqueeze(-1) == classes).float()


def softmax_backward(grad: Tensor, logits: Tensor, factor: float) -> Tensor:
    """Gradient of logits [..., K] where ``factor`` * softmax(logits) has the gradient ``grad`` [..., K]."""
    if is_fused(logits):
        grad, logits = grad.contiguous(), logits.contiguous()
        out, classes = torch.empty_like(logits), logits.shape[-1]
        arrays = (_np(v.view(-1, classes)) for v in (grad, logits, out))
        run_shared(loops.softmax_back, logits.numel() // classes, logits.numel(), *arrays, factor)
        return out
    probs = logits.softmax(-1)
    return factor * probs * (grad - (grad * probs).sum(-1, keepdim=True))


# ------------------------------------------------------------------------------------------------------ symexp two-hot
def twohot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected value [R] of logits [R, bins], summed in antisymmetric pairs: uniform logits give exactly 0."""
    if is_fused(logits):
        logits = logits.contiguous()
        out = torch.empty(logits.shape[0])
        run_shared(loops.twohot_mean, len(logits), logits.numel(), _np(logits), _np(bins), _np(out))
        return out
    probs = logits.softmax(-1)
    middle = bins.shape[0] // 2
    # A product and a sum, not a matmul: autocast would run that in bfloat16.
    return ((probs[..., middle + 1 :] - probs[..., :middle].flip(-1)) * bins[middle + 1 :]).sum(-1)


def twohot_loss_forward(logits: Tensor, below: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy [R] of logits [R, bins], summed over n targets with lower bins and upper weights [n, R], and
    logsumexp [R]."""
    if is_fused(logits):
        loss, total = torch.empty(logits.shape[0]), torch.empty(logits.shape[0])
        arrays = (logits.contiguous(), below.contiguous(), weight.contiguous(), loss, total)
        run_shared(loops.twohot_loss, len(logits), logits.numel(), *map(_np, arrays))
        return loss, total
    total = torch.logsumexp(logits, -1)
    loss = len(below) * total
    for low, share in zip(below, weight, strict=True):
        pair = torch.stack([low, low + 1], -1)
        loss = loss - (logits.gather(-1, pair) * torch.stack([1.0 - share, share], -1)).sum(-1)
    return loss, total


def twohot_loss_backward(grad: Tensor, logits: Tensor, total: Tensor, below: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the logits [R, bins] for the gradient [R] of :func:`twohot_loss_forward`'s loss."""
    if is_fused(logits):
        out = torch.empty(logits.shape)
        arrays = (grad.contiguous(), logits.contiguous(), total, below.contiguous(), weight.contiguous(), out)
        run_shared(loops.twohot_loss_back, len(logits), logits.numel(), *map(_np, arrays))
        return out
    out = (logits - total.unsqueeze(-1)).exp_()
    grad = grad.unsqueeze(-1)
    out.mul_(grad * len(below))
    for low, share in zip(below, weight, strict=True):
        pair = torch.stack([low, low + 1], -1)
        out.scatter_add_(-1, pair, -grad * torch.stack([1.0 - share, share], -1))
    return out
