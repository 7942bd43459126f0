"""Compiled loops (numba) for acting: one step of the recurrence, and a head, on a few rows in one call each.

At these sizes a call of torch costs more than its arithmetic. Weights are [inputs, outputs], their numbers of outputs
multiples of eight; arrays are flat, contiguous float32.
"""

from __future__ import annotations

import numpy as np

from lore.kernels_conv import _inline, _loop, _norm_silu
from lore.kernels_cpu import _draw, _sigmoid, _tanh
from lore.kernels_vector import convolve

__all__ = ["head", "step"]

_f = np.float32
_ONE = _f(1.0)
_SPARE = 8  # rows behind the last that a block of outputs may read and write


@_inline
def _dense(x, rows, inputs, weight, bias, outputs):
    """x [rows + spare, inputs] times weight [inputs, outputs] plus bias, with as many spare rows."""
    out = np.empty((rows + _SPARE) * outputs, np.float32)
    convolve(x, 0, inputs, 0, weight, outputs, 1, inputs, bias, out, rows)
    return out


@_inline
def _widened(x, rows, width, keep):
    """x [rows, width] times keep [rows], with spare rows of zeros."""
    out = np.zeros((rows + _SPARE) * width, np.float32)
    for i in range(rows):
        if keep[i]:
            out[i * width : (i + 1) * width] = x[i * width : (i + 1) * width]
    return out


@_loop
def head(rows, x, inputs, layers, units, weights, outputs, out):
    """``layers`` times dense, norm, silu of x [rows, inputs], then a dense layer into out [rows, outputs].

    weights: (weight, bias, scale) of each layer, (weight, bias) of the last, its outputs padded to a multiple of eight.
    """
    inverse = np.empty(rows, np.float32)
    h, width = _widened(x, rows, inputs, np.ones(rows, np.bool_)), inputs
    for i in range(layers):
        h = _dense(h, rows, width, weights[3 * i], weights[3 * i + 1], units)
        _norm_silu(h, 0, units, rows, weights[3 * i + 2], units, h, 0, inverse, 0)
        width = units
    bias = weights[3 * layers + 1]
    wide = len(bias)
    h = _dense(h, rows, width, weights[3 * layers], bias, wide)
    for i in range(rows):
        for j in range(outputs):
            out[i * outputs + j] = h[i * wide + j]


@_inline
def _recur(rows, deter, stoch, action, hidden, blocks, w, following):
    """following [rows, D] from deter, stoch (with spare rows) and action [rows], rows of the table w[6]."""
    width, part = len(w[8]), len(w[8]) // blocks
    inverse, shared = np.empty(rows, np.float32), np.zeros((rows + _SPARE) * 3 * hidden, np.float32)
    a = _dense(deter, rows, width, w[0], w[1], hidden)
    b = _dense(stoch, rows, len(w[3]) // hidden, w[3], w[4], hidden)
    for i in range(rows):
        _norm_silu(a, i * hidden, hidden, 1, w[2], hidden, shared, 3 * i * hidden, inverse, i)
        _norm_silu(b, i * hidden, hidden, 1, w[5], hidden, shared, (3 * i + 1) * hidden, inverse, i)
        for j in range(hidden):
            shared[(3 * i + 2) * hidden + j] = w[6][action[i] * hidden + j]
    mixed = _dense(shared, rows, 3 * hidden, w[7], w[8], width)
    own, nothing = np.empty((rows + _SPARE) * part, np.float32), np.zeros(part, np.float32)
    for k in range(blocks):
        block = w[9][k * part * part : (k + 1) * part * part]
        convolve(deter, k * part, width, 0, block, part, 1, part, nothing, own, rows)
        for i in range(rows):
            for j in range(part):
                mixed[i * width + k * part + j] += own[i * part + j]
    _norm_silu(mixed, 0, width, rows, w[10], width, mixed, 0, inverse, 0)
    gates, many = np.empty((rows + _SPARE) * 3 * part, np.float32), 3 * part * part
    for k in range(blocks):
        bias = w[12][k * 3 * part : (k + 1) * 3 * part]
        block = w[11][k * many : (k + 1) * many]
        convolve(mixed, k * part, width, 0, block, 3 * part, 1, part, bias, gates, rows)
        for i in range(rows):
            for j in range(part):
                at, here = i * 3 * part + j, i * width + k * part + j
                reset, update = _sigmoid(gates[at]), _sigmoid(gates[at + 2 * part] - _ONE)
                following[here] = deter[here] + update * (_tanh(reset * gates[at + part]) - deter[here])


@_loop
def step(rows, deter, stoch, keep, action, tokens, hidden, blocks, classes, w, uniform, unimix, following, drawn):
    """following [rows, D] and drawn [rows, S K] (zeros before): the filter's next state.

    w: weight, bias and scale of the layers of deter and of stoch; the table of actions; weights from the shared inputs,
    bias, weights [g, ..] within blocks and scale of the mix; weights [g, ..] and bias of the gates; weight, bias and
    scale of the posterior's first layer and weight and bias of its last.
    """
    width, flat, seen = len(w[8]), len(w[17]), len(tokens) // rows
    deter, stoch = _widened(deter, rows, width, keep), _widened(stoch, rows, flat, keep)
    _recur(rows, deter, stoch, action, hidden, blocks, w, following)
    both, inverse = np.zeros((rows + _SPARE) * (width + seen), np.float32), np.empty(rows, np.float32)
    for i in range(rows):
        at = i * (width + seen)
        both[at : at + width] = following[i * width : (i + 1) * width]
        both[at + width : at + width + seen] = tokens[i * seen : (i + 1) * seen]
    h = _dense(both, rows, width + seen, w[13], w[14], hidden)
    _norm_silu(h, 0, hidden, rows, w[15], hidden, h, 0, inverse, 0)
    logits, exps = _dense(h, rows, hidden, w[16], w[17], flat), np.empty(classes, np.float32)
    share, floor = _ONE - _f(unimix), _f(unimix) / _f(classes)
    for i in range(rows * flat // classes):
        at = i * classes
        drawn[at + _draw(logits[at : at + classes], uniform[i], exps, share, floor)] = _ONE
