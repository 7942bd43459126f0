"""Elementwise loops (numba) over rows, in the widest vectors of the processor: RMS norm with SiLU, forward and
backward, and sums of rows.

Arrays are flat, contiguous float32; ``at`` is an index of their first element, ``step`` the distance of two rows, both
in elements. NaN passes through.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_vector import (
    WIDE,
    inline,
    load_part_wide,
    load_wide,
    loop,
    sigmoid,
    splat_wide,
    store,
    store_part,
    total,
)

__all__ = ["activate", "add", "get", "move", "norm_silu", "norm_silu_back", "norm_silu_rows",
           "norm_silu_rows_back", "put", "scatter"]  # fmt: skip

_f = np.float32
_EPS, _ONE = _f(1e-4), _f(1.0)


@inline
def get(x, at, count):
    """The vector x[at : at + WIDE]; of its elements from ``count`` on nothing is read, they are 0."""
    return load_wide(x, at) if count >= WIDE else load_part_wide(x, at, count)


@inline
def put(x, at, value, count):
    """x[at : at + count] = the first ``count`` elements of a vector (all where it has fewer)."""
    if count >= WIDE:
        store(x, at, value)
    else:
        store_part(x, at, value, count)


@inline
def move(x, x_at, out, out_at, count):
    """out[out_at : out_at + count] = x[x_at : x_at + count]. (In a plain loop each index is tested for a negative
    one, which keeps LLVM from making vectors of it.)"""
    for v in range(0, count, WIDE):
        put(out, out_at + v, get(x, x_at + v, count - v), count - v)


@inline
def add(x, x_at, out, out_at, count):
    """out[out_at : out_at + count] += x[x_at : x_at + count]."""
    for v in range(0, count, WIDE):
        put(out, out_at + v, get(out, out_at + v, count - v) + get(x, x_at + v, count - v), count - v)


@inline
def norm_silu(x, x_at, x_step, rows, scale, width, out, out_at, inverse, first):
    """out [rows, width] = silu(x / rms(x) * scale) [DreamerV3's RMSNorm, eps 1e-4]; rows of x are ``x_step`` apart.

    inverse[first : first + rows] = 1 / rms.
    """
    for i in range(rows):
        squares = splat_wide(_f(0.0))
        for v in range(0, width, WIDE):
            value = get(x, x_at + i * x_step + v, width - v)
            squares = squares + value * value
        inverse[first + i] = total(squares)
    for i in range(first, first + rows):
        inverse[i] = _ONE / np.sqrt(inverse[i] / _f(width) + _EPS)
    activate(x, x_at, x_step, rows, scale, width, inverse, first, out, out_at)


@inline
def activate(x, x_at, x_step, rows, scale, width, inverse, first, out, out_at):
    """out [rows, width] = silu(x * inverse * scale), where :func:`norm_silu` has computed inverse [rows] = 1 / rms."""
    for i in range(rows):
        inv = splat_wide(inverse[first + i])
        for v in range(0, width, WIDE):
            y = get(x, x_at + i * x_step + v, width - v) * inv * get(scale, v, width - v)
            put(out, out_at + i * width + v, y * sigmoid(y), width - v)


@inline
def norm_silu_back(grad, g_at, x, x_at, x_step, rows, scale, width, inverse, first, out, out_at, out_step, sums, s_at):
    """out (rows ``out_step`` apart) = gradient of x for ``grad`` [rows, width], that of :func:`norm_silu`'s output; the
    gradient of scale is added to sums[s_at : s_at + width]."""
    for i in range(rows):
        inv, dot, here = splat_wide(inverse[first + i]), splat_wide(_f(0.0)), out_at + i * out_step
        for v in range(0, width, WIDE):
            left = width - v
            n, weight = get(x, x_at + i * x_step + v, left) * inv, get(scale, v, left)
            y = n * weight
            s = sigmoid(y)
            d = get(grad, g_at + i * width + v, left) * s * (splat_wide(_ONE) + y * (splat_wide(_ONE) - s))
            put(sums, s_at + v, get(sums, s_at + v, left) + d * n, left)
            d = d * weight
            dot = dot + d * n
            put(out, here + v, d, left)
        mean = splat_wide(total(dot) / _f(width))
        for v in range(0, width, WIDE):
            left = width - v
            n = get(x, x_at + i * x_step + v, left) * inv
            put(out, here + v, (get(out, here + v, left) - n * mean) * inv, left)


@loop
def norm_silu_rows(low, high, x, scale, width, out, inverse):
    """Rows low..high of :func:`norm_silu`: x, out [R, width]."""
    norm_silu(x, low * width, width, high - low, scale, width, out, low * width, inverse, low)


@loop
def norm_silu_rows_back(low, high, grad, x, scale, width, inverse, out, sums):
    """Rows low..high of :func:`norm_silu_back`: grad, x, out [R, width]; sums [width]: gradient of scale."""
    at = low * width
    norm_silu_back(grad, at, x, at, width, high - low, scale, width, inverse, low, out, at, width, sums, 0)


@loop
def scatter(low, high, grad, ids, width, out):
    """out[ids[i, c]] += grad[i] for out [rows, width], ids int64 [N, C], grad [N, width], i in low..high and all c."""
    cells = len(ids) * width // len(grad)
    for i in range(low, high):
        for n in range(i * cells, (i + 1) * cells):
            add(grad, i * width, out, ids[n] * width, width)
