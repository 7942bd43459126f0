"""Compiled loops (numba) of the RSSM's posterior over sequences: all T steps for some sequences in one call, forward
and backward through time.

Letters and bundles as in :mod:`lore.fast.kernels_step`; B: sequences of the batch. Arrays are flat, contiguous float32
[T, B, width] unless a comment says otherwise. ``following`` and ``drawn`` are [T+1, B, ..]: the start, then the latent
after each step. A call takes the sequences 4 low .. 4 high. NaN passes through.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_rows import add, get, move, norm_silu, norm_silu_back, put
from lore.fast.kernels_step import draw, exponentials, gate, mix, product, tanh
from lore.fast.kernels_vector import WIDE, inline, loop, sigmoid, splat_wide

__all__ = ["backward", "forward"]

_f = np.float32
_ONE = _f(1.0)
_ROWS = 4  # sequences that a call takes at least: products compute four or eight rows at a time


@inline
def _kept(keep, x, out, at, count):
    """out[at : at + count] = x[at : at + count] if ``keep``, else 0: a new episode starts from zeros."""
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
    """``steps`` steps of the posterior; writes following, drawn and ``s`` (a FilterSteps, for the backward pass).

    seen: what tokens and bias add to the posterior's first layer, [T, B, h]. action: projected, [T, B, h]. keep: bool
    [T, B]. uniform: [T, B, S]. c, w: weights of core and posterior, [inputs, outputs].
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
                s.stoch_in, i * hidden, hidden, 1, c.stoch.scale, hidden, s.shared, (3 * i + 1) * hidden, s.stoch_root,
                i,
            )  # fmt: skip
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
def _straight_through(grad, logits, at, rows, flat, classes, factor, out, exps):
    """out[at:] [rows, flat] += factor times the gradient of the logits whose softmax has the gradient ``grad``: that of
    the samples (straight-through estimator)."""
    for i in range(0, rows * flat, flat):
        exponentials(logits, at + i, flat, classes, exps)
        for j in range(0, flat, classes):
            total, dot = _f(0.0), _f(0.0)
            for n in range(classes):
                total += exps[j + n]
                dot += exps[j + n] * grad[i + j + n]
            dot /= total
            for n in range(classes):
                out[at + i + j + n] += factor / total * exps[j + n] * (grad[i + j + n] - dot)


@inline
def _gates_back(first, t, steps, batch, rows, width, blocks, deter, gates, c, grad, out, own, mixed, piece, nothing):
    """Backward through :func:`lore.fast.kernels_step.gate` for ``grad`` [rows, D] of the next deter.

    out [g, T, B, 3 D/g]: gradients of the gates. own [rows, D]: of deter where it is kept by the update gate. mixed
    [rows, D]: of the normed mix. piece: scratch [rows, D/g].
    """
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
    """Backward through :func:`forward`, last step first, for the gradients of deter [T, B, D], of stoch [T, B, S K]
    and, in ``g.logits``, of the logits.

    c, w: as there, but weights [outputs, inputs], within blocks too. s: what forward wrote. g: a FilterGradients that
    is filled (g.logits is added to). sums: gradients of the norms' scales are added: deter, stoch, mix, posterior.
    """
    low, rows, flat, part = _ROWS * low, _ROWS * (high - low), len(w.last.bias), width // blocks
    zero_bias = np.zeros(max(width, flat, 3 * hidden), np.float32)
    deter_grad, drawn = np.zeros(rows * width, np.float32), np.zeros(rows * flat, np.float32)
    own, mixed = np.empty(rows * width, np.float32), np.empty(rows * width, np.float32)
    shared_grad, hidden_grad = np.empty(rows * 3 * hidden, np.float32), np.empty(rows * hidden, np.float32)
    block_grad, exps, factor = np.empty(rows * part, np.float32), np.empty(flat, np.float32), _ONE - _f(unimix)
    for t in range(steps - 1, -1, -1):
        first = t * batch + low
        add(grad_stoch, first * flat, drawn, 0, rows * flat)
        _straight_through(drawn, s.logits, first * flat, rows, flat, classes, factor, g.logits, exps)
        product(g.logits, first * flat, flat, flat, w.last.weight, zero_bias, hidden, hidden_grad, 0, rows)
        norm_silu_back(
            hidden_grad, 0, s.post_in, first * hidden, hidden, rows, w.first.scale, hidden, s.post_root, first, g.post,
            first * hidden, hidden, sums, 2 * hidden + width,
        )  # fmt: skip
        add(grad_deter, first * width, deter_grad, 0, rows * width)
        product(g.post, first * hidden, hidden, hidden, w.first.weight, zero_bias, width, own, 0, rows)
        add(own, 0, deter_grad, 0, rows * width)
        _gates_back(first, t, steps, batch, rows, width, blocks, s.deter, s.gates, c, deter_grad, g.gates, own, mixed,
                    block_grad, zero_bias)  # fmt: skip
        norm_silu_back(
            mixed, 0, s.mix, first * width, width, rows, c.mix_scale, width, s.mix_root, first, g.mix, first * width,
            width, sums, 2 * hidden,
        )  # fmt: skip
        product(g.mix, first * width, width, width, c.shared, zero_bias, 3 * hidden, shared_grad, 0, rows)
        for k in range(blocks):
            block = c.blocks[k * part * part : (k + 1) * part * part]
            product(g.mix, first * width + k * part, width, part, block, zero_bias, part, block_grad, 0, rows)
            for i in range(rows):
                add(block_grad, i * part, own, i * width + k * part, part)
        for i in range(rows):
            at = (first + i) * hidden
            move(shared_grad, 3 * i * hidden, hidden_grad, 0, hidden)
            norm_silu_back(
                hidden_grad, 0, s.deter_in, at, hidden, 1, c.deter.scale, hidden, s.deter_root, first + i, g.deter, at,
                hidden, sums, 0,
            )  # fmt: skip
            move(shared_grad, (3 * i + 1) * hidden, hidden_grad, 0, hidden)
            norm_silu_back(
                hidden_grad, 0, s.stoch_in, at, hidden, 1, c.stoch.scale, hidden, s.stoch_root, first + i, g.stoch, at,
                hidden, sums, hidden,
            )  # fmt: skip
            move(shared_grad, (3 * i + 2) * hidden, g.action, at, hidden)
        product(g.deter, first * hidden, hidden, hidden, c.deter.weight, zero_bias, width, deter_grad, 0, rows)
        product(g.stoch, first * hidden, hidden, hidden, c.stoch.weight, zero_bias, flat, drawn, 0, rows)
        for i in range(rows):
            add(own, i * width, deter_grad, i * width, width)
            _kept(keep[first + i], deter_grad, deter_grad, i * width, width)
            _kept(keep[first + i], drawn, drawn, i * flat, flat)
