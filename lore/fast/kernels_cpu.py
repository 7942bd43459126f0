"""Compiled loops (numba) of norms and two-hot distributions: rows ``low..high`` of contiguous float32 arrays.

The first call of each compiles it for this processor and keeps the result on disk. NaN goes through everywhere, so that
a bad update is still seen. exp is a polynomial of degree six after range reduction (Cephes expf: 2 ulp), which the
compiler can vectorise; the C library's cannot be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from lore.fast.kernels_vector import largest

__all__ = [
    "norm_silu",
    "norm_silu_back",
    "twohot_loss",
    "twohot_loss_back",
    "twohot_mean",
]

_FAST = {"contract", "reassoc", "nsz", "arcp"}
_f = np.float32
_EPS = _f(1e-4)
_ONE = _f(1.0)


def _loop(function: Any) -> Any:
    return njit(function, cache=True, nogil=True, error_model="numpy", fastmath=_FAST)


def _inline(function: Any) -> Any:
    return njit(function, cache=True, inline="always", error_model="numpy", fastmath=_FAST)


def _instruction(function: Any) -> Any:
    return intrinsic(function)


@_instruction
def _round(typing, x):
    def generate(context, builder, signature, args):
        return builder.call(builder.module.declare_intrinsic("llvm.rint", [ir.FloatType()]), args)

    return types.float32(types.float32), generate


@_instruction
def _power_of_two(typing, n):
    def generate(context, builder, signature, args):
        word = ir.IntType(32)
        exponent = builder.add(builder.fptosi(args[0], word), ir.Constant(word, 127))
        return builder.bitcast(builder.shl(exponent, ir.Constant(word, 23)), ir.FloatType())

    return types.float32(types.float32), generate


@_inline
def _exp(x):
    if x < _f(-87.0):
        x = _f(-87.0)
    if x > _f(88.0):
        x = _f(88.0)
    n = _round(x * _f(1.44269504088896341))
    r = x - n * _f(0.693359375)
    r = r - n * _f(-2.12194440e-4)
    p = _f(1.9875691500e-4) * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    return (p * r * r + r + _ONE) * _power_of_two(n)


@_inline
def _sigmoid(x):
    return _ONE / (_ONE + _exp(-x))


@_loop
def norm_silu(low, high, x, scale, out, inverse):
    """out = silu(x / rms(x) * scale), inverse = 1 / rms(x); x [R, C]."""
    width = x.shape[1]
    for i in range(low, high):
        total = _f(0.0)
        for j in range(width):
            total += x[i, j] * x[i, j]
        inv = _ONE / np.sqrt(total / _f(width) + _EPS)
        inverse[i] = inv
        for j in range(width):
            y = x[i, j] * inv * scale[j]
            out[i, j] = y * _sigmoid(y)


@_loop
def norm_silu_back(low, high, grad, x, scale, inverse, out, scale_grad):
    """out = gradient of x; scale_grad [C] grows by the gradient of scale."""
    width = x.shape[1]
    for i in range(low, high):
        inv, along = inverse[i], _f(0.0)
        for j in range(width):
            n = x[i, j] * inv
            y = n * scale[j]
            s = _sigmoid(y)
            d = grad[i, j] * s * (_ONE + y * (_ONE - s))
            scale_grad[j] += d * n
            d *= scale[j]
            along += d * n
            out[i, j] = d
        along /= _f(width)
        for j in range(width):
            out[i, j] = (out[i, j] - x[i, j] * inv * along) * inv


@_loop
def twohot_mean(low, high, logits, bins, out):
    """Expected values [R] of logits [R, bins] in antisymmetric pairs."""
    count = logits.shape[1]
    half = count // 2
    exps = np.empty(count, np.float32)
    for i in range(low, high):
        top = largest(logits[i])
        total, value = _f(0.0), _f(0.0)
        for j in range(count):
            exps[j] = _exp(logits[i, j] - top)
            total += exps[j]
        for j in range(half):
            value += (exps[count - 1 - j] - exps[j]) * bins[count - 1 - j]
        out[i] = value / total


@_loop
def twohot_loss(low, high, logits, below, weight, loss, total):
    """Cross-entropies [R] to all targets (below int64 [n, R], weight [n, R]) and logsumexp [R] of logits [R, bins]."""
    count, targets = logits.shape[1], below.shape[0]
    for i in range(low, high):
        top = largest(logits[i])
        mass = _f(0.0)
        for j in range(count):
            mass += _exp(logits[i, j] - top)
        total[i] = top + np.log(mass)
        value = _f(targets) * total[i]
        for n in range(targets):
            at, w = below[n, i], weight[n, i]
            value -= (_ONE - w) * logits[i, at] + w * logits[i, at + 1]
        loss[i] = value


@_loop
def twohot_loss_back(low, high, grad, logits, total, below, weight, out):
    """out = gradient of logits [R, bins]."""
    count, targets = logits.shape[1], below.shape[0]
    for i in range(low, high):
        scale = grad[i] * _f(targets)
        for j in range(count):
            out[i, j] = _exp(logits[i, j] - total[i]) * scale
        for n in range(targets):
            at, w = below[n, i], weight[n, i]
            out[i, at] -= grad[i] * (_ONE - w)
            out[i, at + 1] -= grad[i] * w
