"""Elementwise loops (numba) over rows of dense layers, in the widest vectors of the processor.

Arrays are flat, contiguous float32; ``at`` counts elements. NaN goes through everywhere. (The image networks have their
own in :mod:`lore.fast.kernels_conv`: their rows of channels are short.)
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_conv import _inline, _loop
from lore.fast.kernels_vector import (
    WIDE,
    load_part_wide,
    load_wide,
    sigmoid,
    splat_wide,
    store,
    store_part,
    total,
)

__all__ = ["activate", "add", "get", "move", "norm_silu", "norm_silu_back", "put", "scatter"]

_f = np.float32
_EPS, _ONE = _f(1e-4), _f(1.0)


@_inline
def get(x, at, count):
    """The vector from ``at`` on, of which ``count`` are read; zeros behind them."""
    return load_wide(x, at) if count >= WIDE else load_part_wide(x, at, count)


@_inline
def put(x, at, value, count):
    """Write the first ``count`` of a vector."""
    if count >= WIDE:
        store(x, at, value)
    else:
        store_part(x, at, value, count)


@_inline
def move(x, x_at, out, out_at, count):
    """out = x for ``count`` numbers. Plain loops check every index for a sign, which keeps them from being vectors."""
    for v in range(0, count, WIDE):
        put(out, out_at + v, get(x, x_at + v, count - v), count - v)


@_inline
def add(x, x_at, out, out_at, count):
    """out += x for ``count`` numbers."""
    for v in range(0, count, WIDE):
        put(out, out_at + v, get(out, out_at + v, count - v) + get(x, x_at + v, count - v), count - v)


@_inline
def norm_silu(x, x_at, rows, scale, width, out, out_at, inverse, first):
    """out [rows, width] = silu(x / rms(x) * scale); inverse = 1 / rms, from ``first`` on."""
    for i in range(rows):
        squares = splat_wide(_f(0.0))
        for v in range(0, width, WIDE):
            value = get(x, x_at + i * width + v, width - v)
            squares = squares + value * value
        inverse[first + i] = total(squares)
    for i in range(first, first + rows):
        inverse[i] = _ONE / np.sqrt(inverse[i] / _f(width) + _EPS)
    activate(x, x_at, rows, scale, width, inverse, first, out, out_at)


@_inline
def activate(x, x_at, rows, scale, width, inverse, first, out, out_at):
    """out [rows, width] = silu(x / rms * scale) with known 1 / rms."""
    for i in range(rows):
        inv = splat_wide(inverse[first + i])
        for v in range(0, width, WIDE):
            y = get(x, x_at + i * width + v, width - v) * inv * get(scale, v, width - v)
            put(out, out_at + i * width + v, y * sigmoid(y), width - v)


@_inline
def norm_silu_back(grad, g_at, x, x_at, rows, scale, width, inverse, first, out, out_at, sums, s_at):
    """out [rows, width] = gradients of x for those of the output; sums[s_at:] grows by the gradient of scale."""
    for i in range(rows):
        inv, along, here = splat_wide(inverse[first + i]), splat_wide(_f(0.0)), out_at + i * width
        for v in range(0, width, WIDE):
            left = width - v
            n, weight = get(x, x_at + i * width + v, left) * inv, get(scale, v, left)
            y = n * weight
            s = sigmoid(y)
            d = get(grad, g_at + i * width + v, left) * s * (splat_wide(_ONE) + y * (splat_wide(_ONE) - s))
            put(sums, s_at + v, get(sums, s_at + v, left) + d * n, left)
            d = d * weight
            along = along + d * n
            put(out, here + v, d, left)
        mean = splat_wide(total(along) / _f(width))
        for v in range(0, width, WIDE):
            left = width - v
            n = get(x, x_at + i * width + v, left) * inv
            put(out, here + v, (get(out, here + v, left) - n * mean) * inv, left)


@_loop
def scatter(low, high, grad, ids, width, out):
    """out [rows, width] += grad [N, width] in the rows ids [N, C] of each."""
    cells = len(ids) * width // len(grad)
    for i in range(low, high):
        for n in range(i * cells, (i + 1) * cells):
            add(grad, i * width, out, ids[n] * width, width)
