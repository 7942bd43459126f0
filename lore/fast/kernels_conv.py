"""Compiled loops (numba) of the image networks: a stage of the encoder or decoder per call, image by image.

Rows ``low..high`` of flat, contiguous float32 arrays; weights and channels padded with zeros to ``wide``, a multiple of
eight. ``sums`` [grows] gathers the gradients of weights, bias and scale of one share. NaN goes through everywhere.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_products import add_outer, convolve, gather_long, gather_small, scatter_long
from lore.fast.kernels_rows import get, norm_silu, norm_silu_back, put
from lore.fast.kernels_vector import (
    WIDE,
    WIDTH,
    inline,
    larger,
    load,
    loop,
    sigmoid,
    splat,
    splat_wide,
    store,
    store_bytes,
    total,
)

__all__ = ["frame_loss", "pool_stage", "pool_stage_back", "up_stage", "up_stage_back"]

_f = np.float32
_EPS, _ONE = _f(1e-4), _f(1.0)
_SPARE = 8  # pixels behind a row that a block of outputs may read


@inline
def _fill(buffer, row, border, x, at, height, width, channels, factor, shift):
    """Copy an image [height, width, channels], times factor plus shift, into the inside of a zero buffer."""
    line = width * channels
    for y in range(height):
        here, there = at + y * line, (y + border) * row + border * channels
        for j in range(line):
            buffer[there + j] = _f(x[here + j]) * factor + shift


# ------------------------------------------------------------------------------------------------------ the encoder
@inline
def _pool(rows, line, cells, wide, pooled, which, at):
    """The largest of each 2x2 block of two rows [2, line] of outputs, and which of the four it was."""
    for j in range(cells):
        for v in range(0, wide, WIDTH):
            here = 2 * j * wide + v
            best, index = load(rows, here), splat(_f(0.0))
            for k in range(1, 4):
                value = load(rows, here + (k >> 1) * line + (k & 1) * wide)
                index = larger(best, value, index, splat(_f(k)))
                best = larger(best, value, best, value)
            store(pooled, at + j * wide + v, best)
            store_bytes(which, at + j * wide + v, index)


@loop
def pool_stage(
    low, high, x, height, width, inputs, factor, shift, weight, bias, wide, scale, outputs, pooled, which, out, inverse
):
    """silu(norm(max-pool(conv5x5(x * factor + shift) + bias))) of x [N, height, width, inputs] (any dtype) into out
    [N, height/2, width/2, outputs], with what the way back needs: pooled and which (0..3) [..., wide], inverse [...].
    """
    row = (width + 4 + _SPARE) * inputs
    buffer, line = np.zeros((height + 4) * row, np.float32), (width + _SPARE) * wide
    rows, half = np.empty(2 * line, np.float32), width // 2
    for n in range(low, high):
        _fill(buffer, row, 2, x, n * height * width * inputs, height, width, inputs, _f(factor), _f(shift))
        for y in range(0, height, 2):
            cell = (n * (height // 2) + y // 2) * half
            for i in range(2):
                there = rows[i * line : (i + 1) * line]
                convolve(buffer, (y + i) * row, inputs, row, weight, wide, 5, 5 * inputs, bias, there, width)
            _pool(rows, line, half, wide, pooled, which, cell * wide)
            norm_silu(pooled, cell * wide, wide, half, scale, outputs, out, cell * outputs, inverse, cell)


@inline
def _patch_gradients(buffer, spread, row, weight, long, outputs, wanted, places, factors, count, sums):
    """Send the gradients of ``count`` convolution outputs per channel to the weights and, if wanted, to the input."""
    for c in range(outputs):
        first = c * count
        if long == 2 * WIDTH:
            gather_small(sums, c * 5 * long, long, buffer, 0, row, places, factors, first, count)
        else:
            for i in range(5):
                for v in range(0, long, 5 * WIDTH):
                    here, at = (c * 5 + i) * long + v, i * row + v
                    gather_long(sums, here, long, buffer, at, row, places, factors, first, count)
                    if wanted:
                        scatter_long(weight, here, long, spread, at, row, places, factors, first, count)


@loop
def pool_stage_back(
    low, high, grad, x, height, width, inputs, factor, shift, weight, long, wide, scale, outputs, pooled, which,
    inverse, x_grad, sums,
):  # fmt: skip
    """Gradients for ``grad`` of :func:`pool_stage`'s out: x_grad (empty: not wanted), sums = weight [outputs, 5, long],
    bias [wide], scale [wide]. weight [outputs, 5, long]: the five rows of each kernel; long is 16 or a multiple of 40,
    and the latter if x_grad is wanted.

    Only one output in four of the convolution has a gradient, so each is sent to its patch of the input.
    """
    row = (width + 4 + _SPARE) * inputs
    buffer, wanted = np.zeros((height + 4) * row + 5 * WIDTH, np.float32), len(x_grad) > 0
    spread, half, b_at = np.zeros(len(buffer), np.float32), width // 2, outputs * 5 * long
    slopes, count = np.zeros(half * wide, np.float32), (height // 2) * half
    places, factors = np.empty(outputs * count, np.int64), np.empty(outputs * count, np.float32)
    for n in range(low, high):
        start = n * height * width * inputs
        _fill(buffer, row, 2, x, start, height, width, inputs, _f(factor), _f(shift))
        for y in range(height // 2):
            cell = n * count + y * half
            norm_silu_back(
                grad, cell * outputs, pooled, cell * wide, wide, half, scale, outputs,
                inverse, cell, slopes, 0, wide, sums, b_at + wide,
            )  # fmt: skip
            for j in range(half):
                for v in range(0, wide, WIDTH):
                    store(sums, b_at + v, load(sums, b_at + v) + load(slopes, j * wide + v))
                for c in range(outputs):
                    k, i = np.int64(which[(cell + j) * wide + c]), c * count + j * (height // 2) + y
                    places[i] = (2 * y + (k >> 1)) * row + (2 * j + (k & 1)) * inputs
                    factors[i] = slopes[j * wide + c]
        if wanted:
            spread[:] = _f(0.0)
        _patch_gradients(buffer, spread, row, weight, long, outputs, wanted, places, factors, count, sums)
        if wanted:
            for y in range(height):
                here, there = (y + 2) * row + 2 * inputs, start + y * width * inputs
                for j in range(width * inputs):
                    x_grad[there + j] = spread[here + j]


# ------------------------------------------------------------------------------------------------------ the decoder
@loop
def up_stage(
    low, high, x, height, width, inputs, weight, bias, wide, scale, outputs, normed, before, out, inverse
):  # fmt: skip
    """conv3x3 of x [N, height, width, inputs] to four phases of ``outputs`` channels, interleaved to a map of twice the
    size, before [N, 2 height, 2 width, outputs]; with ``normed`` also out = silu(norm(before)) and inverse."""
    row = (width + 2 + _SPARE) * inputs
    buffer = np.zeros((height + 2) * row, np.float32)
    line, pair = np.empty((width + _SPARE + 1) * wide, np.float32), 2 * outputs
    for n in range(low, high):
        _fill(buffer, row, 1, x, n * height * width * inputs, height, width, inputs, _ONE, _f(0.0))
        for y in range(height):
            convolve(buffer, y * row, inputs, row, weight, wide, 3, 3 * inputs, bias, line, width)
            for i in range(2):
                cell = (n * 2 * height + 2 * y + i) * 2 * width
                for j in range(width):
                    for v in range(0, pair, WIDTH):
                        put(before, cell * outputs + j * pair + v, load(line, j * wide + i * pair + v), pair - v)
                if normed:
                    at = cell * outputs
                    norm_silu(before, at, outputs, 2 * width, scale, outputs, out, at, inverse, cell)


@inline
def _slopes(
    grad, n, height, width, outputs, wide, normed, before, scale, inverse, tight, padded, means, out, row, sums, at
):
    """Gradients of the four phases side by side, inside the zero border of out: those of the map before the norm."""
    for i in range(2 * height):
        cell = (n * 2 * height + i) * 2 * width
        if normed:
            norm_silu_back(
                grad, cell * outputs, before, cell * outputs, outputs, 2 * width, scale, outputs,
                inverse, cell, tight, 0, padded, sums, at,
            )  # fmt: skip
        for j in range(2 * width):
            there = ((i >> 1) + 1) * row + ((j >> 1) + 1) * wide + (2 * (i & 1) + (j & 1)) * outputs
            for v in range(0, outputs, WIDTH):
                if normed:
                    put(out, there + v, load(tight, j * padded + v), outputs - v)
                else:
                    put(out, there + v, get(grad, (cell + j) * outputs + v, outputs - v), outputs - v)


@loop
def up_stage_back(
    low, high, grad, x, height, width, inputs, weight, deep, wide, scale, outputs, normed, before, inverse, x_grad, sums
):  # fmt: skip
    """Gradients for ``grad`` of :func:`up_stage`'s result: x_grad, sums = weight [3, long, wide] (long = 3 inputs, up
    to a multiple of six), bias [wide], scale [wide]. weight [9 wide, deep]: the kernel turned round, outputs to inputs.
    """
    row, slope_row = (width + 2 + _SPARE) * inputs, (width + 2 + _SPARE) * wide
    buffer = np.zeros((height + 2) * row + WIDTH, np.float32)
    slopes = np.zeros((height + 2) * slope_row, np.float32)
    padded, long = -(-outputs // WIDTH) * WIDTH, -(-inputs // 2) * 6
    tight, means = np.zeros(2 * width * padded, np.float32), np.empty(2 * width, np.float32)
    line, nothing, b_at = np.empty((width + _SPARE) * deep, np.float32), np.zeros(deep, np.float32), 3 * long * wide
    for n in range(low, high):
        _fill(buffer, row, 1, x, n * height * width * inputs, height, width, inputs, _ONE, _f(0.0))
        _slopes(
            grad, n, height, width, outputs, wide, normed, before, scale, inverse, tight, padded, means, slopes,
            slope_row, sums, b_at + wide,
        )  # fmt: skip
        for v in range(0, wide, WIDTH):
            bias = load(sums, b_at + v)
            for y in range(1, height + 1):
                for j in range(1, width + 1):
                    bias = bias + load(slopes, y * slope_row + j * wide + v)
            store(sums, b_at + v, bias)
        for y in range(height):
            convolve(slopes, y * slope_row, wide, slope_row, weight, deep, 3, 3 * wide, nothing, line, width)
            for j in range(width):
                there = ((n * height + y) * width + j) * inputs
                for v in range(0, inputs, WIDTH):
                    put(x_grad, there + v, load(line, j * deep + v), inputs - v)
        for i in range(3):
            for j in range(0, long, 6):
                for c in range(0, wide, 2 * WIDTH):
                    add_outer(
                        buffer, i * row + j, inputs, row, slopes, slope_row + wide + c, wide, slope_row, height, width,
                        sums, (i * long + j) * wide + c,
                    )  # fmt: skip


@loop
def frame_loss(low, high, logits, target, size, loss, slope):
    """loss [N] = sum of (sigmoid(logits) - target / 255)^2 of logits [N, size], slope [N, size] = its gradient."""
    wanted, one, two = np.empty(size, np.float32), splat_wide(_ONE), splat_wide(_f(2.0))
    for n in range(low, high):
        for j in range(size):
            wanted[j] = _f(target[n * size + j]) / _f(255.0)
        error = splat_wide(_f(0.0))
        for v in range(0, size, WIDE):
            left = size - v
            s = sigmoid(get(logits, n * size + v, left))
            d = s - get(wanted, v, left)
            put(slope, n * size + v, two * d * s * (one - s), left)
            error = error + d * d
        loss[n] = total(error)
