"""Compiled loops (numba) of the image networks: one stage of the encoder or decoder per call, for images low..high.

N: images. Arrays are flat, contiguous float32, maps [N, height, width, channels]; output channels of weights, bias and
scale are padded with zeros to ``wide``, a multiple of eight. Backward passes add the gradients of weight, bias and
scale to ``sums``, one after the other. NaN passes through.
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
_SPARE = 8  # pixels after a row: convolve computes eight outputs at a time, and reads and writes that far


@inline
def _fill(buffer, row, border, x, at, height, width, channels, factor, shift):
    """buffer (zeros before; ``row`` elements a line) = image x[at:] [height, width, channels] * factor + shift, with
    ``border`` pixels of zeros around it."""
    line = width * channels
    for y in range(height):
        here, there = at + y * line, (y + border) * row + border * channels
        for j in range(line):
            buffer[there + j] = _f(x[here + j]) * factor + shift


# ------------------------------------------------------------------------------------------------------ the encoder
@inline
def _pool(rows, line, cells, wide, pooled, which, at):
    """pooled[at:] [cells, wide] = the largest of each 2x2 pixels of two lines of outputs, rows [2, line]; which[at:] =
    its number: 0 upper left, 1 upper right, 2 lower left, 3 lower right."""
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
    """out [N, height/2, width/2, outputs] = silu(norm(max-pool(conv5x5(x * factor + shift) + bias))) of x [N, height,
    width, inputs] (any dtype).

    For the backward pass: pooled and which (0..3, uint8) [N, height/2, width/2, wide], inverse = 1 / rms [N, height/2,
    width/2].
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
def _patch_gradients(buffer, padded_grad, row, weight, long, outputs, wanted, places, factors, count, sums):
    """Add the gradients of ``count`` convolution outputs of each channel to those of the weights (in sums) and, where
    ``wanted``, to those of the input (padded_grad, laid out as buffer).

    places, factors [outputs, count]: where the 5x5 patch of an output begins in buffer, and the output's gradient.
    """
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
                        scatter_long(weight, here, long, padded_grad, at, row, places, factors, first, count)


@loop
def pool_stage_back(
    low, high, grad, x, height, width, inputs, factor, shift, weight, long, wide, scale, outputs, pooled, which,
    inverse, x_grad, sums,
):  # fmt: skip
    """Backward through :func:`pool_stage` for ``grad`` of its out: x_grad (empty where it is not wanted), and in sums
    the gradients of weight [outputs, 5, long], bias [wide] and scale [wide].

    weight [outputs, 5, long]: each of the five lines of a kernel, 5 * inputs numbers padded with zeros to ``long``: 16,
    or a multiple of 40 (which it has to be where x_grad is wanted). The pool leaves a gradient to one output in four of
    the convolution, so each such output is added to its own patch of the input instead of convolving all.
    """
    row = (width + 4 + _SPARE) * inputs
    buffer, wanted = np.zeros((height + 4) * row + 5 * WIDTH, np.float32), len(x_grad) > 0
    padded_grad, half, b_at = np.zeros(len(buffer), np.float32), width // 2, outputs * 5 * long
    grads, count = np.zeros(half * wide, np.float32), (height // 2) * half
    places, factors = np.empty(outputs * count, np.int64), np.empty(outputs * count, np.float32)
    for n in range(low, high):
        start = n * height * width * inputs
        _fill(buffer, row, 2, x, start, height, width, inputs, _f(factor), _f(shift))
        for y in range(height // 2):
            cell = n * count + y * half
            norm_silu_back(
                grad, cell * outputs, pooled, cell * wide, wide, half, scale, outputs,
                inverse, cell, grads, 0, wide, sums, b_at + wide,
            )  # fmt: skip
            for j in range(half):
                for v in range(0, wide, WIDTH):
                    store(sums, b_at + v, load(sums, b_at + v) + load(grads, j * wide + v))
                for c in range(outputs):
                    k, i = np.int64(which[(cell + j) * wide + c]), c * count + j * (height // 2) + y
                    places[i] = (2 * y + (k >> 1)) * row + (2 * j + (k & 1)) * inputs
                    factors[i] = grads[j * wide + c]
        if wanted:
            padded_grad[:] = _f(0.0)
        _patch_gradients(buffer, padded_grad, row, weight, long, outputs, wanted, places, factors, count, sums)
        if wanted:
            for y in range(height):
                here, there = (y + 2) * row + 2 * inputs, start + y * width * inputs
                for j in range(width * inputs):
                    x_grad[there + j] = padded_grad[here + j]


# ------------------------------------------------------------------------------------------------------ the decoder
@loop
def up_stage(
    low, high, x, height, width, inputs, weight, bias, wide, scale, outputs, normed, before, out, inverse
):  # fmt: skip
    """before [N, 2 height, 2 width, outputs] = x [N, height, width, inputs] doubled (nearest neighbour) and convolved,
    in one: a 3x3 convolution gives the four pixels that replace one ("phases", of ``outputs`` channels each). With
    ``normed`` also out = silu(norm(before)) and inverse = 1 / rms [N, 2 height, 2 width]."""
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
def _phase_gradients(
    grad, n, height, width, outputs, wide, normed, before, scale, inverse, tight, padded, out, row, sums, at
):
    """out (``row`` elements a line, a border of one pixel of zeros) = gradients of the four phases of image n before
    the norm, side by side as channels [height, width, wide]. tight: scratch [2 width, padded]."""
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
    """Backward through :func:`up_stage` for ``grad`` of its result: x_grad, and in sums the gradients of weight [3,
    long, wide] (long: 3 inputs, padded to a multiple of six), bias [wide] and scale [wide].

    weight [9 wide, deep]: the kernel mirrored in both directions, from outputs to inputs (padded to ``deep``).
    """
    row, grads_row = (width + 2 + _SPARE) * inputs, (width + 2 + _SPARE) * wide
    buffer = np.zeros((height + 2) * row + WIDTH, np.float32)
    grads = np.zeros((height + 2) * grads_row, np.float32)
    padded, long = -(-outputs // WIDTH) * WIDTH, -(-inputs // 2) * 6
    tight = np.zeros(2 * width * padded, np.float32)
    line, zero_bias, b_at = np.empty((width + _SPARE) * deep, np.float32), np.zeros(deep, np.float32), 3 * long * wide
    for n in range(low, high):
        _fill(buffer, row, 1, x, n * height * width * inputs, height, width, inputs, _ONE, _f(0.0))
        _phase_gradients(
            grad, n, height, width, outputs, wide, normed, before, scale, inverse, tight, padded, grads,
            grads_row, sums, b_at + wide,
        )  # fmt: skip
        for v in range(0, wide, WIDTH):
            bias = load(sums, b_at + v)
            for y in range(1, height + 1):
                for j in range(1, width + 1):
                    bias = bias + load(grads, y * grads_row + j * wide + v)
            store(sums, b_at + v, bias)
        for y in range(height):
            convolve(grads, y * grads_row, wide, grads_row, weight, deep, 3, 3 * wide, zero_bias, line, width)
            for j in range(width):
                there = ((n * height + y) * width + j) * inputs
                for v in range(0, inputs, WIDTH):
                    put(x_grad, there + v, load(line, j * deep + v), inputs - v)
        for i in range(3):
            for j in range(0, long, 6):
                for c in range(0, wide, 2 * WIDTH):
                    add_outer(
                        buffer, i * row + j, inputs, row, grads, grads_row + wide + c, wide, grads_row, height, width,
                        sums, (i * long + j) * wide + c,
                    )  # fmt: skip


@loop
def frame_loss(low, high, logits, target, size, loss, loss_grad):
    """loss [N] = sum of (sigmoid(logits) - target / 255)^2 over logits and uint8 target [N, size]; loss_grad [N, size]
    = the gradient of the logits."""
    wanted, one, two = np.empty(size, np.float32), splat_wide(_ONE), splat_wide(_f(2.0))
    for n in range(low, high):
        for j in range(size):
            wanted[j] = _f(target[n * size + j]) / _f(255.0)
        error = splat_wide(_f(0.0))
        for v in range(0, size, WIDE):
            left = size - v
            s = sigmoid(get(logits, n * size + v, left))
            d = s - get(wanted, v, left)
            put(loss_grad, n * size + v, two * d * s * (one - s), left)
            error = error + d * d
        loss[n] = total(error)
