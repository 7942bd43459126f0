"""Compiled loops (numba) of one recurrent step for many rows: with the posterior for acting, with the prior for
imagination (in tiles of 32 rows); and the parts of a step that :mod:`lore.fast.kernels_filter` uses too.

Equations: :class:`lore.dreamer.rssm.RSSM`. D: width of deter, h: hidden width, g: blocks, S K: categoricals times
classes, all widths multiples of eight; R: rows. Arrays are flat, contiguous float32; weights are bundles of
:mod:`lore.fast.bundles` (``c``: the recurrent core). NaN passes through.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_products import convolve
from lore.fast.kernels_rows import add, get, move, norm_silu, put
from lore.fast.kernels_vector import WIDE, exp, fill, inline, loop, sigmoid, splat_wide

__all__ = ["draw", "exponentials", "gate", "imagine", "mix", "product", "step", "tanh"]

_f = np.float32
_ONE = _f(1.0)
_TILE = 32  # rows that imagination takes through a step at a time
_SPARE = 8  # rows after a tile: products compute eight rows at a time, and read and write that far


@inline
def tanh(x):
    """tanh of a vector."""
    return fill(x, _f(2.0)) * sigmoid(fill(x, _f(2.0)) * x) - fill(x, _ONE)


@inline
def product(x, at, step, inputs, weight, bias, outputs, out, out_at, rows):
    """out [rows, outputs] = x [rows, inputs] times weight [inputs, outputs] plus bias; rows of x are ``step`` apart."""
    convolve(x, at, step, 0, weight, outputs, 1, inputs, bias, out[out_at:], rows)


@inline
def mix(first, rows, width, hidden, blocks, deter, shared, c, x, own, nothing):
    """x [.., D] before its norm: ``shared`` [.., 3 h] times the weights that all blocks share, plus each block's D/g of
    deter times its own weights, plus bias; for rows first..first + rows. own: scratch [rows, D/g]; nothing: zeros."""
    part = width // blocks
    product(shared, first * 3 * hidden, 3 * hidden, 3 * hidden, c.shared, c.mix_bias, width, x, first * width, rows)
    for k in range(blocks):
        block = c.blocks[k * part * part : (k + 1) * part * part]
        product(deter, first * width + k * part, width, part, block, nothing, part, own, 0, rows)
        for i in range(rows):
            add(own, i * part, x, (first + i) * width + k * part, part)


@inline
def gate(first, rows, width, blocks, deter, mixed, c, gates, plane, following, after):
    """following[after : after + rows] = the GRU's next deter from deter[first : first + rows] and the normed mix.

    gates [g, plane, 3 D/g]: reset, candidate and update before their activations are kept here; plane: rows of a block
    in it, 0 where nothing is kept and all blocks write over each other.
    """
    part = width // blocks
    many = 3 * part
    for k in range(blocks):
        bias, block = c.gates_bias[k * many : (k + 1) * many], c.gates[k * part * many : (k + 1) * part * many]
        begin = (k * plane + first) * many
        product(mixed, first * width + k * part, width, part, block, bias, many, gates, begin, rows)
        for i in range(rows):
            at, own = begin + i * many, (first + i) * width + k * part
            for j in range(0, part, WIDE):
                left = part - j
                reset = sigmoid(get(gates, at + j, left))
                update = sigmoid(get(gates, at + 2 * part + j, left) - splat_wide(_ONE))
                value = get(deter, own + j, left)
                value = value + update * (tanh(reset * get(gates, at + part + j, left)) - value)
                put(following, (after + i) * width + k * part + j, value, left)


@inline
def exponentials(logits, at, flat, classes, exps):
    """exps [flat] = exp(logits[at : at + flat] - the largest of its categorical), ``classes`` to a categorical."""
    for j in range(0, flat, classes):
        top = logits[at + j]
        for n in range(1, classes):
            top = max(top, logits[at + j + n])
        for n in range(classes):
            exps[j + n] = logits[at + j + n] - top
    for j in range(0, flat, WIDE):
        put(exps, j, exp(get(exps, j, flat - j)), flat - j)


@inline
def draw(logits, at, rows, flat, classes, uniform, first, unimix, exps, out, out_at):
    """out[out_at :] [rows, flat] (zeros before) = one-hot samples of the categoricals with probabilities
    (1 - unimix) softmax(logits[at :]) + unimix / classes, by inverse CDF at uniform[first :] [rows, flat / classes]."""
    keep, floor = _ONE - unimix, unimix / _f(classes)
    for i in range(rows):
        exponentials(logits, at + i * flat, flat, classes, exps)
        for j in range(0, flat, classes):
            mass = _f(0.0)
            for n in range(classes):
                mass += exps[j + n]
            factor, mass = keep / mass, _f(0.0)
            for n in range(classes):
                exps[j + n] = exps[j + n] * factor + floor
                mass += exps[j + n]
            wanted = uniform[first + (i * flat + j) // classes] * mass
            reached, index = _f(0.0), 0
            for n in range(classes - 1):
                reached += exps[j + n]
                if reached <= wanted:
                    index = n + 1
            out[out_at + i * flat + j + index] = _ONE


@inline
def _dense(x, rows, inputs, weight, bias, outputs):
    """x [rows + 8, inputs] times weight [inputs, outputs] plus bias; of the result [rows + 8, outputs] 8 are spare."""
    out = np.empty((rows + _SPARE) * outputs, np.float32)
    convolve(x, 0, inputs, 0, weight, outputs, 1, inputs, bias, out, rows)
    return out


@inline
def _recur(rows, deter, stoch, action, first, table, hidden, blocks, c, following):
    """following[first : first + rows] = next deter [.., D] from deter [rows + 8, D], stoch [rows + 8, S K] and
    action[first :], which names rows of ``table`` [A + 1, h] (the projected actions)."""
    width = len(c.mix_bias)
    inverse, shared = np.empty(rows, np.float32), np.zeros((rows + _SPARE) * 3 * hidden, np.float32)
    a = _dense(deter, rows, width, c.deter.weight, c.deter.bias, hidden)
    b = _dense(stoch, rows, len(c.stoch.weight) // hidden, c.stoch.weight, c.stoch.bias, hidden)
    for i in range(rows):
        norm_silu(a, i * hidden, hidden, 1, c.deter.scale, hidden, shared, 3 * i * hidden, inverse, i)
        norm_silu(b, i * hidden, hidden, 1, c.stoch.scale, hidden, shared, (3 * i + 1) * hidden, inverse, i)
        move(table, action[first + i] * hidden, shared, (3 * i + 2) * hidden, hidden)
    x, own = np.empty((rows + _SPARE) * width, np.float32), np.empty((rows + _SPARE) * width // blocks, np.float32)
    mix(0, rows, width, hidden, blocks, deter, shared, c, x, own, np.zeros(width // blocks, np.float32))
    norm_silu(x, 0, width, rows, c.mix_scale, width, x, 0, inverse, 0)
    room = np.empty((rows + _SPARE) * 3 * width // blocks, np.float32)
    gate(0, rows, width, blocks, deter, x, c, room, 0, following, first)


@inline
def _tile(x, first, rows, width):
    """A copy of x[first : first + rows] of [.., width], with 8 rows of zeros after it."""
    out = np.zeros((rows + _SPARE) * width, np.float32)
    move(x, first * width, out, 0, rows * width)
    return out


@loop
def imagine(
    low, high, deter, stoch, action, table, hidden, blocks, classes, c, layers, last, uniform, unimix, following, drawn
):
    """following [R, D] and drawn [R, S K] (zeros before): the next latent under the prior, whose network is ``layers``
    and ``last``, from deter [R, D], stoch [R, S K] and action int64 [R]; uniform [R, S] in [0, 1).
    """
    width, flat, exps = len(c.mix_bias), len(last.bias), np.empty(len(last.bias), np.float32)
    inverse = np.empty(_TILE, np.float32)
    for first in range(low, high, _TILE):
        rows = min(_TILE, high - first)
        here, drew = _tile(deter, first, rows, width), _tile(stoch, first, rows, flat)
        _recur(rows, here, drew, action, first, table, hidden, blocks, c, following)
        h, inputs = _tile(following, first, rows, width), width
        for layer in layers:
            h = _dense(h, rows, inputs, layer.weight, layer.bias, hidden)
            norm_silu(h, 0, hidden, rows, layer.scale, hidden, h, 0, inverse, 0)
            inputs = hidden
        logits = _dense(h, rows, hidden, last.weight, last.bias, flat)
        at = first * flat
        draw(logits, 0, rows, flat, classes, uniform, at // classes, _f(unimix), exps, drawn, at)


@loop
def step(
    rows, deter, stoch, keep, action, table, tokens, hidden, blocks, classes, c, w, uniform, unimix, following, drawn
):
    """following [rows, D] and drawn [rows, S K] (zeros before): the next latent under the posterior ``w``, which also
    reads tokens [rows, E]; where ``keep`` is False the step starts from zeros. uniform [rows, S] in [0, 1)."""
    width, flat, seen = len(c.mix_bias), len(w.last.bias), len(tokens) // rows
    deter, stoch = _tile(deter, 0, rows, width), _tile(stoch, 0, rows, flat)
    for i in range(rows):
        if not keep[i]:
            deter[i * width : (i + 1) * width] = _f(0.0)
            stoch[i * flat : (i + 1) * flat] = _f(0.0)
    _recur(rows, deter, stoch, action, 0, table, hidden, blocks, c, following)
    both, inverse = np.zeros((rows + _SPARE) * (width + seen), np.float32), np.empty(rows, np.float32)
    for i in range(rows):
        move(following, i * width, both, i * (width + seen), width)
        move(tokens, i * seen, both, i * (width + seen) + width, seen)
    h = _dense(both, rows, width + seen, w.first.weight, w.first.bias, hidden)
    norm_silu(h, 0, hidden, rows, w.first.scale, hidden, h, 0, inverse, 0)
    logits = _dense(h, rows, hidden, w.last.weight, w.last.bias, flat)
    draw(logits, 0, rows, flat, classes, uniform, 0, _f(unimix), np.empty(flat, np.float32), drawn, 0)
