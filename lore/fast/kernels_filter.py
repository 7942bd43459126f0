"""Compiled loops (numba) of the RSSM's filter: all steps of some rows of the batch in one call, and back through them.

Arrays are flat, contiguous float32 [T, B, width] unless a comment says otherwise; those of what goes into a step and
comes out of it are [T+1, B, width] and begin with the start. Weights are [inputs, outputs], all widths multiples of
eight. A call takes the rows ``4 low .. 4 high``. NaN goes through everywhere.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_rows import add, get, move, norm_silu, norm_silu_back, put
from lore.fast.kernels_step import draw, exponentials, gate, mix, product, tanh
from lore.fast.kernels_vector import WIDE, inline, loop, sigmoid, splat_wide

__all__ = ["backward", "forward"]

_f = np.float32
_ONE = _f(1.0)
_ROWS = 4  # what a block of outputs takes at least


@inline
def _kept(keep, x, out, at, count):
    """out = x where the row goes on, else 0."""
    if keep:
        move(x, at, out, at, count)
    else:
        for v in range(0, count, WIDE):
            put(out, at + v, splat_wide(_f(0.0)), count - v)


@loop
def forward(
    low, high, steps, batch, width, hidden, blocks, classes, seen, action, keep, uniform, unimix, c, w, s, following,
    drawn,
):  # fmt: skip
    """Filter ``steps`` steps.

    c, w: core and posterior. s: all written. following, drawn: states [T+1, B, ..], the start first.
    """
    low, rows, flat = _ROWS * low, _ROWS * (high - low), len(w.last.bias)
    own, nothing = np.empty(rows * width // blocks, np.float32), np.zeros(max(width, flat), np.float32)
    exps = np.empty(flat, np.float32)
    for t in range(steps):
        first = t * batch + low
        for i in range(first, first + rows):
            _kept(keep[i], following, s.deter, i * width, width)
            _kept(keep[i], drawn, s.stoch, i * flat, flat)
        product(s.deter, first * width, width, width, c.deter.weight, c.deter.bias, hidden, s.deter_in, first * hidden,
                rows)  # fmt: skip
        product(s.stoch, first * flat, flat, flat, c.stoch.weight, c.stoch.bias, hidden, s.stoch_in, first * hidden,
                rows)  # fmt: skip
        for i in range(first, first + rows):
            norm_silu(
                s.deter_in, i * hidden, hidden, 1, c.deter.scale, hidden, s.shared, 3 * i * hidden, s.deter_root, i
            )
            norm_silu(
                s.stoch_in,
                i * hidden,
                hidden,
                1,
                c.stoch.scale,
                hidden,
                s.shared,
                (3 * i + 1) * hidden,
                s.stoch_root,
                i,
            )
            move(action, i * hidden, s.shared, (3 * i + 2) * hidden, hidden)
        mix(first, rows, width, hidden, blocks, s.deter, s.shared, c, s.mix, own, nothing)
        norm_silu(s.mix, first * width, width, rows, c.mix_scale, width, s.mixed, first * width, s.mix_root, first)
        gate(first, rows, width, blocks, s.deter, s.mixed, c, s.gates, steps * batch, following, first + batch)
        after = first + batch
        product(following, after * width, width, width, w.first.weight, nothing, hidden, s.post_in, first * hidden,
                rows)  # fmt: skip
        add(seen, first * hidden, s.post_in, first * hidden, rows * hidden)
        norm_silu(
            s.post_in, first * hidden, hidden, rows, w.first.scale, hidden, s.hidden, first * hidden, s.post_root, first
        )
        product(s.hidden, first * hidden, hidden, hidden, w.last.weight, w.last.bias, flat, s.logits, first * flat,
                rows)  # fmt: skip
        draw(s.logits, first * flat, rows, flat, classes, uniform, first * flat // classes, _f(unimix), exps, drawn,
             after * flat)  # fmt: skip


@inline
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


@inline
def _gates_back(first, t, steps, batch, rows, width, blocks, deter, gates, c, grad, out, own, mixed, piece, nothing):
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
        block = c.gates[k * part * many : (k + 1) * part * many]
        product(out, begin, many, many, block, nothing, part, piece, 0, rows)
        for i in range(rows):
            move(piece, i * part, mixed, i * width + k * part, part)


@loop
def backward(
    low, high, steps, batch, width, hidden, blocks, classes, keep, unimix, grad_deter, grad_stoch, c, w, s, g, sums
):
    """Gradients of what :func:`forward` read, for those of deter and stoch [T, B, ..] and, in g[0], of the logits.

    c, w: as there but each weight [outputs, inputs], within blocks too. s: as it was written. g: written, the logits'
    grown. sums grows by the gradients of the scales: deter, stoch, mix, posterior.
    """
    low, rows, flat, part = _ROWS * low, _ROWS * (high - low), len(w.last.bias), width // blocks
    nothing = np.zeros(max(width, flat, 3 * hidden), np.float32)
    carried, drawn = np.zeros(rows * width, np.float32), np.zeros(rows * flat, np.float32)
    own, mixed = np.empty(rows * width, np.float32), np.empty(rows * width, np.float32)
    shared, thin = np.empty(rows * 3 * hidden, np.float32), np.empty(rows * hidden, np.float32)
    piece, exps, factor = np.empty(rows * part, np.float32), np.empty(flat, np.float32), _ONE - _f(unimix)
    for t in range(steps - 1, -1, -1):
        first = t * batch + low
        add(grad_stoch, first * flat, drawn, 0, rows * flat)
        _straight(drawn, s.logits, first * flat, rows, flat, classes, factor, g.logits, exps)
        product(g.logits, first * flat, flat, flat, w.last.weight, nothing, hidden, thin, 0, rows)
        norm_silu_back(
            thin, 0, s.post_in, first * hidden, hidden, rows, w.first.scale, hidden, s.post_root, first, g.post,
            first * hidden, hidden, sums, 2 * hidden + width,
        )  # fmt: skip
        add(grad_deter, first * width, carried, 0, rows * width)
        product(g.post, first * hidden, hidden, hidden, w.first.weight, nothing, width, own, 0, rows)
        add(own, 0, carried, 0, rows * width)
        _gates_back(first, t, steps, batch, rows, width, blocks, s.deter, s.gates, c, carried, g.gates, own, mixed,
                    piece, nothing)  # fmt: skip
        norm_silu_back(
            mixed, 0, s.mix, first * width, width, rows, c.mix_scale, width, s.mix_root, first, g.mix, first * width,
            width, sums, 2 * hidden,
        )  # fmt: skip
        product(g.mix, first * width, width, width, c.shared, nothing, 3 * hidden, shared, 0, rows)
        for k in range(blocks):
            block = c.blocks[k * part * part : (k + 1) * part * part]
            product(g.mix, first * width + k * part, width, part, block, nothing, part, piece, 0, rows)
            for i in range(rows):
                add(piece, i * part, own, i * width + k * part, part)
        for i in range(rows):
            at = (first + i) * hidden
            move(shared, 3 * i * hidden, thin, 0, hidden)
            norm_silu_back(
                thin,
                0,
                s.deter_in,
                at,
                hidden,
                1,
                c.deter.scale,
                hidden,
                s.deter_root,
                first + i,
                g.deter,
                at,
                hidden,
                sums,
                0,
            )
            move(shared, (3 * i + 1) * hidden, thin, 0, hidden)
            norm_silu_back(
                thin, 0, s.stoch_in, at, hidden, 1, c.stoch.scale, hidden, s.stoch_root, first + i, g.stoch, at,
                hidden, sums, hidden,
            )  # fmt: skip
            move(shared, (3 * i + 2) * hidden, g.action, at, hidden)
        product(g.deter, first * hidden, hidden, hidden, c.deter.weight, nothing, width, carried, 0, rows)
        product(g.stoch, first * hidden, hidden, hidden, c.stoch.weight, nothing, flat, drawn, 0, rows)
        for i in range(rows):
            add(own, i * width, carried, i * width, width)
            _kept(keep[first + i], carried, carried, i * width, width)
            _kept(keep[first + i], drawn, drawn, i * flat, flat)
