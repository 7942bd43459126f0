"""Compiled loops (numba) of a head: dense layers with norm and silu, then a dense one, tile by tile of rows.

A tile goes through all layers while it is in the nearest cache. Arrays are flat, contiguous float32; weights are
[inputs, outputs], units a multiple of eight, outputs padded to one (``wide``). NaN goes through everywhere.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_products import add_products, convolve
from lore.fast.kernels_rows import activate, add, move, norm_silu, norm_silu_back
from lore.fast.kernels_vector import inline, loop

__all__ = ["backward", "forward"]

_f = np.float32
_TILE = 32  # rows
_SPARE = 8  # rows behind the last that a block of outputs may read and write


@loop
def forward(low, high, x, inputs, units, layers, last, outputs, out, kept, inverse):
    """out [R, outputs] of x [R, inputs].

    kept [layers, R, units]: what the layers give before their norms, inverse [layers, R]: 1 / rms of it; both empty
    where no gradient is wanted.
    """
    wide, total = len(last.bias), len(x) // inputs
    first, here = np.zeros((_TILE + _SPARE) * inputs, np.float32), np.zeros((_TILE + _SPARE) * units, np.float32)
    before = np.empty((_TILE + _SPARE) * units, np.float32)
    end, roots = np.empty((_TILE + _SPARE) * wide, np.float32), np.empty(_TILE, np.float32)
    for begin in range(low, high, _TILE):
        rows = min(_TILE, high - begin)
        move(x, begin * inputs, first, 0, rows * inputs)
        for i, layer in enumerate(layers):
            source, width = (first, inputs) if i == 0 else (here, units)
            convolve(source, 0, width, 0, layer.weight, units, 1, width, layer.bias, before, rows)
            norm_silu(before, 0, units, rows, layer.scale, units, here, 0, roots, 0)
            if len(kept):
                at = i * total + begin
                move(before, 0, kept, at * units, rows * units)
                move(roots, 0, inverse, at, rows)
        convolve(here, 0, units, 0, last.weight, wide, 1, units, last.bias, end, rows)
        for r in range(rows):
            move(end, r * wide, out, (begin + r) * outputs, outputs)


@inline
def _bias(grad, rows, wide, sums, at):
    for r in range(rows):
        add(grad, r * wide, sums, at, wide)


@loop
def backward(low, high, grad, x, inputs, units, scales, turned, outputs, wide, kept, inverse, out, sums):
    """out [R, inputs] (or empty): gradient of x for ``grad`` [R, outputs]; sums grows by those of weight, bias and
    scale of each layer, then of weight and bias [.., wide] of the last. ``turned``: the weights [outputs, inputs]."""
    layers, total = len(scales), len(grad) // outputs
    first, slope = np.empty((_TILE + _SPARE) * inputs, np.float32), np.zeros((_TILE + _SPARE) * wide, np.float32)
    active = np.empty((_TILE + _SPARE) * units, np.float32)
    here, back = np.empty((_TILE + _SPARE) * units, np.float32), np.empty((_TILE + _SPARE) * units, np.float32)
    nothing, whole = np.zeros(max(units, inputs), np.float32), np.empty((_TILE + _SPARE) * inputs, np.float32)
    for begin in range(low, high, _TILE):
        rows = min(_TILE, high - begin)
        move(x, begin * inputs, first, 0, rows * inputs)
        for r in range(rows):
            move(grad, (begin + r) * outputs, slope, r * wide, outputs)
        end = len(sums) - (units + 1) * wide
        at = (layers - 1) * total + begin
        activate(kept, at * units, units, rows, scales[layers - 1], units, inverse, at, active, 0)
        add_products(active, units, slope, wide, rows, sums, end)
        _bias(slope, rows, wide, sums, end + units * wide)
        convolve(slope, 0, wide, 0, turned[layers], units, 1, wide, nothing, here, rows)
        for i in range(layers - 1, -1, -1):
            width, at = inputs if i == 0 else units, i * total + begin
            end -= (width + 2) * units
            at_scale = end + (width + 1) * units
            norm_silu_back(
                here, 0, kept, at * units, units, rows, scales[i], units, inverse, at, back, 0, units, sums, at_scale
            )
            if i:
                at -= total
                activate(kept, at * units, units, rows, scales[i - 1], units, inverse, at, active, 0)
                add_products(active, units, back, units, rows, sums, end)
                convolve(back, 0, units, 0, turned[i], units, 1, units, nothing, here, rows)
            else:
                add_products(first, inputs, back, units, rows, sums, end)
            _bias(back, rows, units, sums, end + width * units)
        if len(out):
            convolve(back, 0, units, 0, turned[0], inputs, 1, units, nothing, whole, rows)
            move(whole, 0, out, begin * inputs, rows * inputs)
