"""Compiled loops (numba) of the RSSM's filter: all steps of some rows of the batch in one call, and back through them.

Arrays are flat, contiguous float32 [T, B, width] unless a comment says otherwise; those of what goes into a step and
comes out of it are [T+1, B, width] and begin with the start. Weights are [inputs, outputs], all widths multiples of
eight. A call takes the rows ``4 low .. 4 high``. NaN goes through everywhere.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_conv import _inline, _loop
from lore.fast.kernels_rows import add, get, move, norm_silu, norm_silu_back, put
from lore.fast.kernels_step import draw, exponentials, gate, mix, product, tanh
from lore.fast.kernels_vector import WIDE, sigmoid, splat_wide

__all__ = ["backward", "forward"]

_f = np.float32
_ONE = _f(1.0)
_ROWS = 4  # what a block of outputs takes at least


@_inline
def _kept(keep, x, out, at, count):
    """out = x where the row goes on, else 0."""
    if keep:
        move(x, at, out, at, count)
    else:
        for v in range(0, count, WIDE):
            put(out, at + v, splat_wide(_f(0.0)), count - v)


@_loop
def forward(low, high, steps, batch, width, hidden, blocks, classes, seen, action, keep, uniform, unimix, w, s):
    """Filter ``steps`` steps.

    w: weight, bias and scale of the layers of deter and of stoch; weight from the shared inputs and bias of the mix,
    its weights [g, ..] within blocks, its scale; weights [g, ..] and bias of the gates; weight and scale of the
    posterior's first layer, weight and bias of its last. s, all written: deter, stoch; what the layer of deter gives
    before its norm and 1 / rms of that [T, B], the same of stoch; shared; the mix before its norm, 1 / rms and after
    it; gates [g, T, B, ..]; the posterior's first layer before its norm, 1 / rms and after it; logits; the states
    [T+1, B, ..] that follow, deter and stoch.
    """
    deter, stoch, a, inverse_a, b, inverse_b, shared, x, inverse_x, mixed, gates, c, inverse_c, post, logits = s[:15]
    following, drawn = s[15], s[16]
    low, rows, flat = _ROWS * low, _ROWS * (high - low), len(w[15])
    own, nothing = np.empty(rows * width // blocks, np.float32), np.zeros(max(width, flat), np.float32)
    exps = np.empty(flat, np.float32)
    for t in range(steps):
        first = t * batch + low
        for i in range(first, first + rows):
            _kept(keep[i], following, deter, i * width, width)
            _kept(keep[i], drawn, stoch, i * flat, flat)
        product(deter, first * width, width, width, w[0], w[1], hidden, a, first * hidden, rows)
        product(stoch, first * flat, flat, flat, w[3], w[4], hidden, b, first * hidden, rows)
        for i in range(first, first + rows):
            norm_silu(a, i * hidden, 1, w[2], hidden, shared, 3 * i * hidden, inverse_a, i)
            norm_silu(b, i * hidden, 1, w[5], hidden, shared, (3 * i + 1) * hidden, inverse_b, i)
            move(action, i * hidden, shared, (3 * i + 2) * hidden, hidden)
        mix(first, rows, width, hidden, blocks, deter, shared, w, x, own, nothing)
        norm_silu(x, first * width, rows, w[9], width, mixed, first * width, inverse_x, first)
        gate(first, rows, width, blocks, deter, mixed, w, gates, steps * batch, following, first + batch)
        after = first + batch
        product(following, after * width, width, width, w[12], nothing, hidden, c, first * hidden, rows)
        add(seen, first * hidden, c, first * hidden, rows * hidden)
        norm_silu(c, first * hidden, rows, w[13], hidden, post, first * hidden, inverse_c, first)
        product(post, first * hidden, hidden, hidden, w[14], w[15], flat, logits, first * flat, rows)
        draw(logits, first * flat, rows, flat, classes, uniform, first * flat // classes, _f(unimix), exps, drawn,
             after * flat)  # fmt: skip


@_inline
def _straight(grad, logits, at, rows, flat, classes, factor, out, exps):
    """out += factor times the gradient of logits [rows, flat] whose softmax has the gradient ``grad``."""
    for i in range(0, rows * flat, flat):
        exponentials(logits, at + i, flat, classes, exps)
        for j in range(0, flat, classes):
            total, along = _f(0.0), _f(0.0)
            for n in range(classes):
                total += exps[j + n]
                along += exps[j + n] * grad[i + j + n]
            along /= total
            for n in range(classes):
                out[at + i + j + n] += factor / total * exps[j + n] * (grad[i + j + n] - along)


@_inline
def _gates_back(first, t, steps, batch, rows, width, blocks, deter, gates, w, grad, out, own, mixed, piece, nothing):
    """out: gradients of the gates [g, T, B, ..]; own, mixed [rows, D]: of deter past the gates and of the mix."""
    part = width // blocks
    many, one = 3 * part, splat_wide(_ONE)
    for k in range(blocks):
        begin = (k * steps * batch + first) * many
        for i in range(rows):
            at, here = begin + i * many, i * width + k * part
            for j in range(0, part, WIDE):
                left = part - j
                g, value = get(grad, here + j, left), get(deter, first * width + here + j, left)
                reset, candidate = sigmoid(get(gates, at + j, left)), get(gates, at + part + j, left)
                update = sigmoid(get(gates, at + 2 * part + j, left) - one)
                bounded = tanh(reset * candidate)
                inner = g * update * (one - bounded * bounded)
                put(out, at + j, inner * candidate * reset * (one - reset), left)
                put(out, at + part + j, inner * reset, left)
                put(out, at + 2 * part + j, g * (bounded - value) * update * (one - update), left)
                put(own, here + j, g * (one - update), left)
        block = w[10][k * part * many : (k + 1) * part * many]
        product(out, begin, many, many, block, nothing, part, piece, 0, rows)
        for i in range(rows):
            move(piece, i * part, mixed, i * width + k * part, part)


@_loop
def backward(
    low, high, steps, batch, width, hidden, blocks, classes, keep, unimix, grad_deter, grad_stoch, w, s, g, sums
):
    """Gradients of what :func:`forward` read, for those of deter and stoch [T, B, ..] and, in g[0], of the logits.

    w as there but each weight [outputs, inputs] (within blocks too); s its first 15. g, written: gradients of logits
    (grown), of the layers before their norms: posterior, gates [g, T, B, ..], mix, deter, stoch; of the actions. sums
    grows by those of the scales: deter, stoch, mix, posterior.
    """
    deter, _, a, inverse_a, b, inverse_b, _, x, inverse_x, _, gates, c, inverse_c, _, logits = s
    g_logits, g_c, g_gates, g_x, g_a, g_b, g_action = g
    low, rows, flat, part = _ROWS * low, _ROWS * (high - low), len(w[15]), width // blocks
    nothing = np.zeros(max(width, flat, 3 * hidden), np.float32)
    carried, drawn = np.zeros(rows * width, np.float32), np.zeros(rows * flat, np.float32)
    own, mixed = np.empty(rows * width, np.float32), np.empty(rows * width, np.float32)
    shared, thin = np.empty(rows * 3 * hidden, np.float32), np.empty(rows * hidden, np.float32)
    piece, exps, factor = np.empty(rows * part, np.float32), np.empty(flat, np.float32), _ONE - _f(unimix)
    for t in range(steps - 1, -1, -1):
        first = t * batch + low
        add(grad_stoch, first * flat, drawn, 0, rows * flat)
        _straight(drawn, logits, first * flat, rows, flat, classes, factor, g_logits, exps)
        product(g_logits, first * flat, flat, flat, w[14], nothing, hidden, thin, 0, rows)
        norm_silu_back(thin, 0, c, first * hidden, rows, w[13], hidden, inverse_c, first, g_c, first * hidden, sums,
                       2 * hidden + width)  # fmt: skip
        add(grad_deter, first * width, carried, 0, rows * width)
        product(g_c, first * hidden, hidden, hidden, w[12], nothing, width, own, 0, rows)
        add(own, 0, carried, 0, rows * width)
        _gates_back(first, t, steps, batch, rows, width, blocks, deter, gates, w, carried, g_gates, own, mixed, piece,
                    nothing)  # fmt: skip
        norm_silu_back(mixed, 0, x, first * width, rows, w[9], width, inverse_x, first, g_x, first * width, sums,
                       2 * hidden)  # fmt: skip
        product(g_x, first * width, width, width, w[6], nothing, 3 * hidden, shared, 0, rows)
        for k in range(blocks):
            block = w[8][k * part * part : (k + 1) * part * part]
            product(g_x, first * width + k * part, width, part, block, nothing, part, piece, 0, rows)
            for i in range(rows):
                add(piece, i * part, own, i * width + k * part, part)
        for i in range(rows):
            at = (first + i) * hidden
            move(shared, 3 * i * hidden, thin, 0, hidden)
            norm_silu_back(thin, 0, a, at, 1, w[2], hidden, inverse_a, first + i, g_a, at, sums, 0)
            move(shared, (3 * i + 1) * hidden, thin, 0, hidden)
            norm_silu_back(thin, 0, b, at, 1, w[5], hidden, inverse_b, first + i, g_b, at, sums, hidden)
            move(shared, (3 * i + 2) * hidden, g_action, at, hidden)
        product(g_a, first * hidden, hidden, hidden, w[0], nothing, width, carried, 0, rows)
        product(g_b, first * hidden, hidden, hidden, w[3], nothing, flat, drawn, 0, rows)
        for i in range(rows):
            add(own, i * width, carried, i * width, width)
            _kept(keep[first + i], carried, carried, i * width, width)
            _kept(keep[first + i], drawn, drawn, i * flat, flat)
