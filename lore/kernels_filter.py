"""Compiled loops (numba) of the RSSM's filter: all steps of some rows of the batch in one call, and back through them.

Arrays are flat, contiguous float32 [T, B, width] unless a comment says otherwise; those of what goes into a step and
comes out of it are [T+1, B, width] and begin with the start. Weights are [inputs, outputs], all widths multiples of
eight. A call takes the rows ``4 low .. 4 high``. NaN goes through everywhere.
"""

from __future__ import annotations

import numpy as np

from lore.kernels_conv import _inline, _loop, _norm_silu, _norm_silu_back
from lore.kernels_cpu import _draw, _exp
from lore.kernels_vector import WIDTH, convolve, load, sigmoid, splat, store

__all__ = ["backward", "forward"]

_f = np.float32
_ONE = _f(1.0)
_ROWS = 4  # what a block of outputs takes at least


@_inline
def _tanh(x):
    return splat(_f(2.0)) * sigmoid(splat(_f(2.0)) * x) - splat(_ONE)


@_inline
def _product(x, at, step, inputs, weight, bias, outputs, out, out_at, rows):
    """out [rows, outputs] = bias + x [rows, inputs], its rows ``step`` apart, times weight."""
    convolve(x, at, step, 0, weight, outputs, 1, inputs, bias, out[out_at:], rows)


@_inline
def _add(x, at, out, out_at, count):
    for j in range(count):
        out[out_at + j] += x[at + j]


@_inline
def _copy(x, at, out, out_at, count):
    for j in range(count):
        out[out_at + j] = x[at + j]


@_inline
def _mix(first, rows, width, hidden, blocks, deter, shared, w, x, own, nothing):
    """x = shared inputs and each block's own part of deter, times the weights of the mix, plus bias."""
    part = width // blocks
    _product(shared, first * 3 * hidden, 3 * hidden, 3 * hidden, w[6], w[7], width, x, first * width, rows)
    for k in range(blocks):
        block = w[8][k * part * part : (k + 1) * part * part]
        _product(deter, first * width + k * part, width, part, block, nothing, part, own, 0, rows)
        for i in range(rows):
            _add(own, i * part, x, (first + i) * width + k * part, part)


@_inline
def _gates(first, batch, t, steps, rows, width, blocks, deter, mixed, w, gates, following):
    """The gates [g, T, B, 3 D/g] of one step and the state [T+1, B, D] that they make of deter."""
    part = width // blocks
    many, after = 3 * part, first + batch
    for k in range(blocks):
        bias, block = w[11][k * many : (k + 1) * many], w[10][k * part * many : (k + 1) * part * many]
        begin = (k * steps * batch + first) * many
        _product(mixed, first * width + k * part, width, part, block, bias, many, gates, begin, rows)
        for i in range(rows):
            at, own = begin + i * many, (first + i) * width + k * part
            for j in range(0, part, WIDTH):
                reset, update = sigmoid(load(gates, at + j)), sigmoid(load(gates, at + 2 * part + j) - splat(_ONE))
                value = load(deter, own + j)
                value = value + update * (_tanh(reset * load(gates, at + part + j)) - value)
                store(following, (after + i) * width + k * part + j, value)


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
    exps, factor, floor = np.empty(classes, np.float32), _ONE - _f(unimix), _f(unimix) / _f(classes)
    for t in range(steps):
        first = t * batch + low
        for i in range(first, first + rows):
            for j in range(width):
                deter[i * width + j] = following[i * width + j] if keep[i] else _f(0.0)
            for j in range(flat):
                stoch[i * flat + j] = drawn[i * flat + j] if keep[i] else _f(0.0)
        _product(deter, first * width, width, width, w[0], w[1], hidden, a, first * hidden, rows)
        _product(stoch, first * flat, flat, flat, w[3], w[4], hidden, b, first * hidden, rows)
        for i in range(first, first + rows):
            _norm_silu(a, i * hidden, hidden, 1, w[2], hidden, shared, 3 * i * hidden, inverse_a, i)
            _norm_silu(b, i * hidden, hidden, 1, w[5], hidden, shared, (3 * i + 1) * hidden, inverse_b, i)
            _copy(action, i * hidden, shared, (3 * i + 2) * hidden, hidden)
        _mix(first, rows, width, hidden, blocks, deter, shared, w, x, own, nothing)
        _norm_silu(x, first * width, width, rows, w[9], width, mixed, first * width, inverse_x, first)
        _gates(first, batch, t, steps, rows, width, blocks, deter, mixed, w, gates, following)
        after = first + batch
        _product(following, after * width, width, width, w[12], nothing, hidden, c, first * hidden, rows)
        _add(seen, first * hidden, c, first * hidden, rows * hidden)
        _norm_silu(c, first * hidden, hidden, rows, w[13], hidden, post, first * hidden, inverse_c, first)
        _product(post, first * hidden, hidden, hidden, w[14], w[15], flat, logits, first * flat, rows)
        for i in range(rows * flat // classes):
            at = first * flat + i * classes
            drawn[at + batch * flat + _draw(logits[at : at + classes], uniform[at // classes], exps, factor, floor)] = (
                _ONE
            )


@_inline
def _straight(grad, logits, at, rows, flat, classes, factor, out, exps):
    """out += factor times the gradient of logits [rows, flat] whose softmax has the gradient ``grad``."""
    for i in range(0, rows * flat, flat):
        for j in range(0, flat, classes):
            top = logits[at + i + j]
            for n in range(1, classes):
                top = max(top, logits[at + i + j + n])
            for n in range(classes):
                exps[j + n] = logits[at + i + j + n] - top
        for j in range(flat):
            exps[j] = _exp(exps[j])
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
    many, one = 3 * part, splat(_ONE)
    for k in range(blocks):
        begin = (k * steps * batch + first) * many
        for i in range(rows):
            at, here = begin + i * many, i * width + k * part
            for j in range(0, part, WIDTH):
                g, value = load(grad, here + j), load(deter, first * width + here + j)
                reset, candidate = sigmoid(load(gates, at + j)), load(gates, at + part + j)
                update = sigmoid(load(gates, at + 2 * part + j) - one)
                bounded = _tanh(reset * candidate)
                inner = g * update * (one - bounded * bounded)
                store(out, at + j, inner * candidate * reset * (one - reset))
                store(out, at + part + j, inner * reset)
                store(out, at + 2 * part + j, g * (bounded - value) * update * (one - update))
                store(own, here + j, g * (one - update))
        block = w[10][k * part * many : (k + 1) * part * many]
        _product(out, begin, many, many, block, nothing, part, piece, 0, rows)
        for i in range(rows):
            _copy(piece, i * part, mixed, i * width + k * part, part)


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
    nothing, means = np.zeros(max(width, flat, 3 * hidden), np.float32), np.empty(rows, np.float32)
    carried, drawn = np.zeros(rows * width, np.float32), np.zeros(rows * flat, np.float32)
    own, mixed = np.empty(rows * width, np.float32), np.empty(rows * width, np.float32)
    shared, thin = np.empty(rows * 3 * hidden, np.float32), np.empty(rows * hidden, np.float32)
    piece, exps, factor = np.empty(rows * part, np.float32), np.empty(flat, np.float32), _ONE - _f(unimix)
    for t in range(steps - 1, -1, -1):
        first = t * batch + low
        _add(grad_stoch, first * flat, drawn, 0, rows * flat)
        _straight(drawn, logits, first * flat, rows, flat, classes, factor, g_logits, exps)
        _product(g_logits, first * flat, flat, flat, w[14], nothing, hidden, thin, 0, rows)
        _norm_silu_back(thin, 0, c, first * hidden, hidden, rows, w[13], hidden, inverse_c, first,
                        g_c[first * hidden :], hidden, means, sums, 2 * hidden + width)  # fmt: skip
        _add(grad_deter, first * width, carried, 0, rows * width)
        _product(g_c, first * hidden, hidden, hidden, w[12], nothing, width, own, 0, rows)
        _add(own, 0, carried, 0, rows * width)
        _gates_back(first, t, steps, batch, rows, width, blocks, deter, gates, w, carried, g_gates, own, mixed, piece,
                    nothing)  # fmt: skip
        _norm_silu_back(mixed, 0, x, first * width, width, rows, w[9], width, inverse_x, first,
                        g_x[first * width :], width, means, sums, 2 * hidden)  # fmt: skip
        _product(g_x, first * width, width, width, w[6], nothing, 3 * hidden, shared, 0, rows)
        for k in range(blocks):
            block = w[8][k * part * part : (k + 1) * part * part]
            _product(g_x, first * width + k * part, width, part, block, nothing, part, piece, 0, rows)
            for i in range(rows):
                _add(piece, i * part, own, i * width + k * part, part)
        for i in range(rows):
            at = (first + i) * hidden
            for j in range(hidden):
                thin[j] = shared[3 * i * hidden + j]
            _norm_silu_back(thin, 0, a, at, hidden, 1, w[2], hidden, inverse_a, first + i, g_a[at:], hidden, means,
                            sums, 0)  # fmt: skip
            for j in range(hidden):
                thin[j] = shared[(3 * i + 1) * hidden + j]
            _norm_silu_back(thin, 0, b, at, hidden, 1, w[5], hidden, inverse_b, first + i, g_b[at:], hidden, means,
                            sums, hidden)  # fmt: skip
            _copy(shared, (3 * i + 2) * hidden, g_action, at, hidden)
        _product(g_a, first * hidden, hidden, hidden, w[0], nothing, width, carried, 0, rows)
        _product(g_b, first * hidden, hidden, hidden, w[3], nothing, flat, drawn, 0, rows)
        for i in range(rows):
            kept = _ONE if keep[first + i] else _f(0.0)
            for j in range(i * width, (i + 1) * width):
                carried[j] = (carried[j] + own[j]) * kept
            for j in range(i * flat, (i + 1) * flat):
                drawn[j] *= kept
