"""Compiled loops (numba) of a head: dense layers with norm and SiLU, then one dense layer, forward and backward.

A tile of 32 rows passes all layers before the next one begins, so that its activations stay in the cache.
Arrays are flat, contiguous float32; weights are [inputs, outputs]; ``units`` is a multiple of eight, the last layer's
outputs are padded with zeros to one (``wide``). R: all rows, ``low..high`` those of one call. NaN passes through.
"""

from __future__ import annotations

import numpy as np

from lore.fast.kernels_products import add_products, convolve
from lore.fast.kernels_rows import activate, add, move, norm_silu, norm_silu_back
from lore.fast.kernels_vector import inline, loop

__all__ = ["backward", "forward"]

_f = np.float32
_TILE = 32  # rows
_SPARE = 8  # rows after a tile: products compute eight rows at a time, and read and write that far


@loop
def forward(low, high, x, inputs, units, layers, last, outputs, out, pre_norms, inverse_rms):
    """out [R, outputs] of x [R, inputs].

    For the backward pass: pre_norms [layers, R, units], what each layer gives before its norm, and inverse_rms
    [layers, R], 1 / rms of it; both empty where no gradient is wanted.
    """
    wide, total = len(last.bias), len(x) // inputs
    most = _TILE + _SPARE
    x_tile, hidden = np.zeros(most * inputs, np.float32), np.zeros(most * units, np.float32)
    pre_norm, inverse = np.empty(most * units, np.float32), np.empty(_TILE, np.float32)
    out_tile = np.empty(most * wide, np.float32)
    for begin in range(low, high, _TILE):
        rows = min(_TILE, high - begin)
        move(x, begin * inputs, x_tile, 0, rows * inputs)
        for i, layer in enumerate(layers):
            source, width = (x_tile, inputs) if i == 0 else (hidden, units)
            convolve(source, 0, width, 0, layer.weight, units, 1, width, layer.bias, pre_norm, rows)
            norm_silu(pre_norm, 0, units, rows, layer.scale, units, hidden, 0, inverse, 0)
            if len(pre_norms):
                at = i * total + begin
                move(pre_norm, 0, pre_norms, at * units, rows * units)
                move(inverse, 0, inverse_rms, at, rows)
        convolve(hidden, 0, units, 0, last.weight, wide, 1, units, last.bias, out_tile, rows)
        for r in range(rows):
            move(out_tile, r * wide, out, (begin + r) * outputs, outputs)


@inline
def _add_bias_gradient(grad, rows, wide, sums, at):
    """sums[at : at + wide] += the sum of the rows of grad [rows, wide]."""
    for r in range(rows):
        add(grad, r * wide, sums, at, wide)


@loop
def backward(
    low, high, grad, x, inputs, units, scales, transposed, outputs, wide, pre_norms, inverse_rms, x_grad, sums
):  # fmt: skip
    """x_grad [R, inputs] (empty where it is not wanted): the gradient of x for ``grad`` [R, outputs] of the output.

    sums, one after the other: gradients of weight, bias and scale of each layer, then of weight and bias [.., wide] of
    the last layer; those of these rows are added. transposed: the weights [outputs, inputs] of all layers.
    """
    layers, total = len(scales), len(grad) // outputs
    most = _TILE + _SPARE
    x_tile, grad_tile = np.empty(most * inputs, np.float32), np.zeros(most * wide, np.float32)
    activation, x_grad_tile = np.empty(most * units, np.float32), np.empty(most * inputs, np.float32)
    after_norm, before_norm = np.empty(most * units, np.float32), np.empty(most * units, np.float32)  # gradients
    zero_bias = np.zeros(max(units, inputs), np.float32)
    for begin in range(low, high, _TILE):
        rows = min(_TILE, high - begin)
        move(x, begin * inputs, x_tile, 0, rows * inputs)
        for r in range(rows):
            move(grad, (begin + r) * outputs, grad_tile, r * wide, outputs)
        place = len(sums) - (units + 1) * wide  # of the layer's weight in sums
        at = (layers - 1) * total + begin
        activate(pre_norms, at * units, units, rows, scales[layers - 1], units, inverse_rms, at, activation, 0)
        add_products(activation, units, grad_tile, wide, rows, sums, place)
        _add_bias_gradient(grad_tile, rows, wide, sums, place + units * wide)
        convolve(grad_tile, 0, wide, 0, transposed[layers], units, 1, wide, zero_bias, after_norm, rows)
        for i in range(layers - 1, -1, -1):
            width, at = inputs if i == 0 else units, i * total + begin
            place -= (width + 2) * units
            norm_silu_back(
                after_norm, 0, pre_norms, at * units, units, rows, scales[i], units, inverse_rms, at, before_norm, 0,
                units, sums, place + (width + 1) * units,
            )  # fmt: skip
            if i:
                at -= total
                activate(pre_norms, at * units, units, rows, scales[i - 1], units, inverse_rms, at, activation, 0)
                add_products(activation, units, before_norm, units, rows, sums, place)
                convolve(before_norm, 0, units, 0, transposed[i], units, 1, units, zero_bias, after_norm, rows)
            else:
                add_products(x_tile, inputs, before_norm, units, rows, sums, place)
            _add_bias_gradient(before_norm, rows, units, sums, place + width * units)
        if len(x_grad):
            convolve(before_norm, 0, units, 0, transposed[0], inputs, 1, units, zero_bias, x_grad_tile, rows)
            move(x_grad_tile, 0, x_grad, begin * inputs, rows * inputs)
