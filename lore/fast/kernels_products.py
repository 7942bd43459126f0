"""Matrix products and convolutions in compiled loops (numba): a block of outputs is summed in vector registers over all
its inputs and stored once.

Arrays are flat, contiguous float32; ``at`` is an index of their first element, steps are distances in elements.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from lore.compiled import njit
from lore.fast.kernels_vector import (
    _FLOAT,
    _INDEX,
    _VECTOR,
    WIDE,
    WIDTH,
    _ahead,
    _at,
    _instruction,
    _multiply_add,
    _pointer,
    _read,
    _spread,
    _write,
)

__all__ = ["add_outer", "add_products", "convolve", "gather_long", "gather_small", "scatter_long"]


def _convolve(pixels: int, vectors: int, width: int = WIDTH) -> Any:
    """For ``pixels`` outputs in a row and ``vectors`` vectors of ``width`` channels, all of them in registers:
    out[p, c] = bias[c] + sum over rows, j < inner of x[row * row_step + p * step + j] * weight[row * inner + j, c]."""

    vector = ir.VectorType(_FLOAT, width)

    @_instruction
    def block(typing, x, x_at, step, row_step, weight, w_at, wide, rows, inner, bias, out, out_at):
        def generate(context, builder, signature, args):
            x, x_at, step, row_step, weight, w_at, wide, rows, inner, bias, out, out_at = args
            x_kind, w_kind, b_kind, o_kind = (signature.args[i] for i in (0, 4, 9, 10))
            sums = [[cgutils.alloca_once(builder, vector) for _ in range(vectors)] for _ in range(pixels)]
            biases = _pointer(context, builder, b_kind, bias, w_at)
            for v in range(vectors):
                start = _read(builder, _ahead(builder, biases, v * width), vector)
                for row in sums:
                    builder.store(start, row[v])
            shifts = [builder.mul(step, ir.Constant(_INDEX, p)) for p in range(pixels)]
            with cgutils.for_range(builder, rows) as outer:
                x_row = builder.add(x_at, builder.mul(outer.index, row_step))
                w_row = builder.add(w_at, builder.mul(builder.mul(outer.index, inner), wide))
                with cgutils.for_range(builder, inner) as loop:
                    taps = _pointer(context, builder, w_kind, weight, builder.add(w_row, builder.mul(loop.index, wide)))
                    ws = [_read(builder, _ahead(builder, taps, v * width), vector) for v in range(vectors)]
                    here = _pointer(context, builder, x_kind, x, builder.add(x_row, loop.index))
                    for shift, row in zip(shifts, sums, strict=True):
                        value = _spread(builder, builder.load(builder.gep(here, [shift])), vector)
                        for w, place in zip(ws, row, strict=True):
                            builder.store(_multiply_add(builder, value, w, builder.load(place)), place)
            for p, row in enumerate(sums):
                at = builder.add(out_at, builder.mul(wide, ir.Constant(_INDEX, p)))
                target = _pointer(context, builder, o_kind, out, at)
                for v, place in enumerate(row):
                    _write(builder, builder.load(place), _ahead(builder, target, v * width))
            return context.get_dummy_value()

        return types.void(x, _at, _at, _at, weight, _at, _at, _at, _at, bias, out, _at), generate

    return block


_wide_8, _wide_4, _narrow_8, _narrow_4 = _convolve(8, 2), _convolve(4, 2), _convolve(8, 1), _convolve(4, 1)
_broad_8, _broad_4 = _convolve(8, 2, 2 * WIDTH), _convolve(4, 2, 2 * WIDTH)
_HAS_BROAD = WIDE > WIDTH  # 32 registers of sixteen floats (AVX-512); else 16 of eight, too few for _wide_8's sums


@njit(cache=True, nogil=True, error_model="numpy")
def convolve(x, at, step, row_step, weight, wide, rows, inner, bias, out, width):
    """out [width, wide] (wide a multiple of 8) = bias [wide] + one line of a convolution of ``rows`` x ``inner`` taps:
    pixel p reads x[at + p * step + row * row_step + j] for row < rows, j < inner; weight [rows * inner, wide].

    With rows = 1 and step = inner it is a dense layer of ``width`` rows. Pixels are computed by eights or fours: up to
    seven after the line are read and written too.
    """
    c = 0
    while c < wide:
        broad, narrow = _HAS_BROAD and wide - c >= 4 * WIDTH, wide - c < 2 * WIDTH
        eights = narrow or _HAS_BROAD
        p = 0
        while p < width:
            here, there, many = at + p * step, p * wide + c, eights and width - p > 4
            if broad and many:
                _broad_8(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
            elif broad:
                _broad_4(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
            elif narrow and many:
                _narrow_8(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
            elif narrow:
                _narrow_4(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
            elif many:
                _wide_8(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
            else:
                _wide_4(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
            p += 8 if many else 4
        c += 4 * WIDTH if broad else 2 * WIDTH


def _patches(rows: int, vectors: int, gather: bool) -> Any:
    """For items i = first..first + count of a list, with a block of ``rows`` x ``vectors`` vectors in registers: with
    ``gather`` block += factors[i] * patch(i), else patch(i) += factors[i] * block. Row r of patch(i) begins at
    x[x_at + places[i] + r * x_step], row r of the block at block[b_at + r * b_step]."""

    @_instruction
    def walk(typing, block, b_at, b_step, x, x_at, x_step, places, factors, first, count):
        def generate(context, builder, signature, args):
            block, b_at, b_step, x, x_at, x_step, places, factors, first, count = args
            b_kind, x_kind, p_kind, f_kind = (signature.args[i] for i in (0, 3, 6, 7))
            cells = []
            for r in range(rows):
                at = builder.add(b_at, builder.mul(b_step, ir.Constant(_INDEX, r)))
                pointer = _pointer(context, builder, b_kind, block, at)
                for v in range(vectors):
                    cell = _ahead(builder, pointer, v * WIDTH)
                    cells.append((cell, cgutils.alloca_once(builder, _VECTOR), r, v))
            for cell, place, _, _ in cells:
                builder.store(_read(builder, cell), place)
            steps = [builder.mul(x_step, ir.Constant(_INDEX, r)) for r in range(rows)]
            with cgutils.for_range(builder, count) as loop:
                i = builder.add(first, loop.index)
                shift = builder.load(_pointer(context, builder, p_kind, places, i))
                here = _pointer(context, builder, x_kind, x, builder.add(x_at, shift))
                factor = _spread(builder, builder.load(_pointer(context, builder, f_kind, factors, i)))
                for _, place, r, v in cells:
                    source = _ahead(builder, builder.gep(here, [steps[r]]), v * WIDTH)
                    value, held = _read(builder, source), builder.load(place)
                    if gather:
                        builder.store(_multiply_add(builder, factor, value, held), place)
                    else:
                        _write(builder, _multiply_add(builder, factor, held, value), source)
            if gather:
                for cell, place, _, _ in cells:
                    _write(builder, builder.load(place), cell)
            return context.get_dummy_value()

        return types.void(block, _at, _at, x, _at, _at, places, factors, _at, _at), generate

    return walk


gather_small, gather_long, scatter_long = _patches(5, 2, True), _patches(1, 5, True), _patches(1, 5, False)


def _outer(tall: int, vectors: int, width: int = WIDTH) -> Any:
    """out[j, c] += sum over rows, pixels p of x[row * x_row + p * x_step + j] * grad[row * g_row + p * wide + c] for
    ``tall`` j and ``vectors`` vectors of ``width`` c, all of them in registers."""
    vector = ir.VectorType(_FLOAT, width)

    @_instruction
    def block(typing, x, x_at, x_step, x_row, grad, g_at, wide, g_row, rows, pixels, out, out_at):
        def generate(context, builder, signature, args):
            x, x_at, x_step, x_row, grad, g_at, wide, g_row, rows, pixels, out, out_at = args
            x_kind, g_kind, o_kind = (signature.args[i] for i in (0, 4, 10))
            places = []
            for j in range(tall):
                at = builder.add(out_at, builder.mul(wide, ir.Constant(_INDEX, j)))
                target = _pointer(context, builder, o_kind, out, at)
                places += [
                    (_ahead(builder, target, v * width), cgutils.alloca_once(builder, vector), j, v)
                    for v in range(vectors)
                ]
            for pointer, place, _, _ in places:
                builder.store(_read(builder, pointer, vector), place)
            with cgutils.for_range(builder, rows) as outer:
                x_here = builder.add(x_at, builder.mul(outer.index, x_row))
                g_here = builder.add(g_at, builder.mul(outer.index, g_row))
                with cgutils.for_range(builder, pixels) as loop:
                    source = _pointer(context, builder, x_kind, x, builder.add(x_here, builder.mul(loop.index, x_step)))
                    slope = _pointer(context, builder, g_kind, grad, builder.add(g_here, builder.mul(loop.index, wide)))
                    slopes = [_read(builder, _ahead(builder, slope, v * width), vector) for v in range(vectors)]
                    values = [_spread(builder, builder.load(_ahead(builder, source, j)), vector) for j in range(tall)]
                    for _, place, j, v in places:
                        builder.store(_multiply_add(builder, values[j], slopes[v], builder.load(place)), place)
            for pointer, place, _, _ in places:
                _write(builder, builder.load(place), pointer)
            return context.get_dummy_value()

        return types.void(x, _at, _at, _at, grad, _at, _at, _at, _at, _at, out, _at), generate

    return block


add_outer = _outer(6, 2)
_outer_broad, _outer_wide, _outer_narrow = _outer(8, 2, 2 * WIDTH), _outer(4, 2), _outer(8, 1)


@njit(cache=True, nogil=True, error_model="numpy")
def add_products(x, inputs, grad, wide, rows, out, at):
    """out[at:] [inputs, wide] += x [rows, inputs] transposed times grad [rows, wide]; inputs, wide multiples of 8."""
    c = 0
    while c < wide:
        broad = _HAS_BROAD and wide - c >= 4 * WIDTH
        twice = not _HAS_BROAD and wide - c >= 2 * WIDTH
        for j in range(0, inputs, 8):
            here = at + j * wide + c
            if broad:
                _outer_broad(x, j, inputs, 0, grad, c, wide, 0, 1, rows, out, here)
            elif twice:
                _outer_wide(x, j, inputs, 0, grad, c, wide, 0, 1, rows, out, here)
                _outer_wide(x, j + 4, inputs, 0, grad, c, wide, 0, 1, rows, out, here + 4 * wide)
            else:
                _outer_narrow(x, j, inputs, 0, grad, c, wide, 0, 1, rows, out, here)
        c += 4 * WIDTH if broad else 2 * WIDTH if twice else WIDTH
