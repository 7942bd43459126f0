"""Compiled loops (numba) of two-hot distributions: rows ``low..high`` of logits [R, bins].

Arrays are flat and contiguous, float32 unless said otherwise. NaN passes through, so that a bad update is seen.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_rows import get, put
from lore.fast.kernels_vector import WIDE, exp, inline, largest, loop, splat_wide, total

__all__ = ["twohot_loss", "twohot_loss_back", "twohot_mean"]

_f = np.float32
_ONE = _f(1.0)


@inline
def _exponentials(logits, at, count, top, exps):
    """exps [count] = exp(logits[at : at + count] - top), and their sum."""
    mass = splat_wide(_f(0.0))
    for v in range(0, count, WIDE):
        put(exps, v, exp(get(logits, at + v, count - v) - splat_wide(top)), count - v)
        mass = mass + get(exps, v, count - v)
    return total(mass)


@loop
def twohot_mean(low, high, logits, bins, out):
    """out [R]: expected values; bins b and -b are summed in pairs, so that equal logits give exactly 0."""
    count = len(bins)
    exps = np.empty(count, np.float32)
    for i in range(low, high):
        at = i * count
        mass, value = _exponentials(logits, at, count, largest(logits[at : at + count]), exps), _f(0.0)
        for j in range(count // 2):
            value += (exps[count - 1 - j] - exps[j]) * bins[count - 1 - j]
        out[i] = value / mass


@loop
def twohot_loss(low, high, logits, count, below, weight, loss, total_log):
    """loss [R]: sum of the cross-entropies to n targets; total_log [R]: logsumexp of each row.

    A target lies between the bins ``below`` (int64 [n, R]) and below + 1, at the share ``weight`` [n, R] of the way.
    """
    rows = len(loss)
    targets, exps = len(below) // rows, np.empty(count, np.float32)
    for i in range(low, high):
        at = i * count
        top = largest(logits[at : at + count])
        total_log[i] = top + np.log(_exponentials(logits, at, count, top, exps))
        value = _f(targets) * total_log[i]
        for n in range(targets):
            lower, upper_share = at + below[n * rows + i], weight[n * rows + i]
            value -= (_ONE - upper_share) * logits[lower] + upper_share * logits[lower + 1]
        loss[i] = value


@loop
def twohot_loss_back(low, high, grad, logits, count, total_log, below, weight, out):
    """out [R, bins] = gradient of the logits for ``grad`` [R] of :func:`twohot_loss`."""
    rows = len(grad)
    targets = len(below) // rows
    for i in range(low, high):
        at, scale = i * count, splat_wide(grad[i] * _f(targets))
        for v in range(0, count, WIDE):
            value = exp(get(logits, at + v, count - v) - splat_wide(total_log[i]))
            put(out, at + v, value * scale, count - v)
        for n in range(targets):
            lower, upper_share = at + below[n * rows + i], weight[n * rows + i]
            out[lower] -= grad[i] * (_ONE - upper_share)
            out[lower + 1] -= grad[i] * upper_share
