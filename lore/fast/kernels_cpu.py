"""Compiled loops (numba) behind :mod:`lore.fast.kernels`: rows ``low..high`` of contiguous float32 arrays.

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
    "gated",
    "gated_back",
    "mixed_norm_silu",
    "norm_silu",
    "norm_silu_back",
    "sample",
    "sample_index",
    "softmax_back",
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


@_inline
def _tanh(x):
    return _f(2.0) * _sigmoid(_f(2.0) * x) - _ONE


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
def mixed_norm_silu(low, high, dense, blocks, scale, x, out, inverse):
    """x = dense [N, D] + blocks [g, N, D/g]; out and inverse as in norm_silu."""
    width = dense.shape[1]
    count, part = blocks.shape[0], blocks.shape[2]
    for i in range(low, high):
        total = _f(0.0)
        for k in range(count):
            for j in range(part):
                value = dense[i, k * part + j] + blocks[k, i, j]
                x[i, k * part + j] = value
                total += value * value
        inv = _ONE / np.sqrt(total / _f(width) + _EPS)
        inverse[i] = inv
        for j in range(width):
            y = x[i, j] * inv * scale[j]
            out[i, j] = y * _sigmoid(y)


@_loop
def gated(low, high, gates, deter, out):
    """out [N, D] from gates [g, N, 3 D/g] and deter [N, D]."""
    count, part = gates.shape[0], gates.shape[2] // 3
    for i in range(low, high):
        for k in range(count):
            for j in range(part):
                reset = _sigmoid(gates[k, i, j])
                update = _sigmoid(gates[k, i, 2 * part + j] - _ONE)
                own = deter[i, k * part + j]
                out[i, k * part + j] = own + update * (_tanh(reset * gates[k, i, part + j]) - own)


@_loop
def gated_back(low, high, grad, gates, deter, out, own_grad):
    """out [g, N, 3 D/g], own_grad [N, D] from grad [N, D]."""
    count, part = gates.shape[0], gates.shape[2] // 3
    for i in range(low, high):
        for k in range(count):
            for j in range(part):
                g, own = grad[i, k * part + j], deter[i, k * part + j]
                reset = _sigmoid(gates[k, i, j])
                candidate = gates[k, i, part + j]
                update = _sigmoid(gates[k, i, 2 * part + j] - _ONE)
                bounded = _tanh(reset * candidate)
                inner = g * update * (_ONE - bounded * bounded)
                out[k, i, j] = inner * candidate * reset * (_ONE - reset)
                out[k, i, part + j] = inner * reset
                out[k, i, 2 * part + j] = g * (bounded - own) * update * (_ONE - update)
                own_grad[i, k * part + j] = g * (_ONE - update)


@_inline
def _draw(logits, at, exps, keep, floor):
    """Entry of a softmax (shares ``keep``, plus ``floor`` each) that the inverse CDF gives at ``at`` in [0, 1)."""
    classes = len(logits)
    top = logits[0]
    for j in range(1, classes):
        top = max(top, logits[j])
    total = _f(0.0)
    for j in range(classes):
        exps[j] = _exp(logits[j] - top)
        total += exps[j]
    factor, total = keep / total, _f(0.0)
    for j in range(classes):
        exps[j] = exps[j] * factor + floor
        total += exps[j]
    at *= total  # of the last partial sum: rounding must never point past the last possible entry
    reached, index = _f(0.0), 0
    for j in range(classes - 1):
        reached += exps[j]
        if reached <= at:
            index = j + 1
    return index


@_loop
def sample(low, high, logits, uniform, unimix, out):
    """One-hot draws into out (zeros before) [R, K]."""
    exps = np.empty(logits.shape[1], np.float32)
    keep, floor = _ONE - _f(unimix), _f(unimix) / _f(logits.shape[1])
    for i in range(low, high):
        out[i, _draw(logits[i], uniform[i], exps, keep, floor)] = _ONE


@_loop
def sample_index(low, high, logits, uniform, unimix, out):
    """Draws into out int64 [R]."""
    exps = np.empty(logits.shape[1], np.float32)
    keep, floor = _ONE - _f(unimix), _f(unimix) / _f(logits.shape[1])
    for i in range(low, high):
        out[i] = _draw(logits[i], uniform[i], exps, keep, floor)


@_loop
def softmax_back(low, high, grad, logits, out, factor):
    """out = gradient of logits [R, K] for factor * softmax."""
    classes = logits.shape[1]
    for i in range(low, high):
        top = logits[i, 0]
        for j in range(1, classes):
            top = max(top, logits[i, j])
        total, along = _f(0.0), _f(0.0)
        for j in range(classes):
            p = _exp(logits[i, j] - top)
            out[i, j] = p
            total += p
            along += p * grad[i, j]
        along /= total
        share = _f(factor) / total
        for j in range(classes):
            out[i, j] *= share * (grad[i, j] - along)


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
