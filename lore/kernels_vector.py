"""Eight float32 at once in compiled loops (numba): a vector type, its operations, the inner loops of convolutions.

Numba compiles scalars and leaves vectors to LLVM, which gives up on short rows of channels. Here the vectors are spelt
out. Arrays are flat, contiguous float32; ``at`` counts elements.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    "WIDTH",
    "add_outer",
    "convolve",
    "gather_long",
    "gather_small",
    "larger",
    "load",
    "load_part",
    "scatter_long",
    "sigmoid",
    "splat",
    "store",
    "store_bytes",
    "store_part",
    "total",
]

WIDTH = 8

_f = np.float32
_FLOAT, _WORD, _INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _WORDS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_WORD, WIDTH)
_BYTES, _MASK = ir.VectorType(ir.IntType(8), WIDTH), ir.VectorType(ir.IntType(1), WIDTH)
_LANES = ir.Constant(ir.VectorType(_INDEX, WIDTH), list(range(WIDTH)))
_at = types.int64


class _Floats(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x8")


_floats = _Floats()


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


_instruction: Any = intrinsic


# -------------------------------------------------------------------------------------------------- pieces of LLVM's IR
def _pointer(context, builder, kind, array, at):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _ahead(builder, pointer, elements: int):
    return builder.gep(pointer, [ir.Constant(_INDEX, elements)])


def _read(builder, pointer):
    value = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()))
    value.align = 4
    return value


def _write(builder, value, pointer) -> None:
    builder.store(value, builder.bitcast(pointer, _VECTOR.as_pointer())).align = 4


def _spread(builder, scalar, kind: Any = _VECTOR):
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_WORDS, [0] * WIDTH))


def _multiply_add(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _named(builder, result, arguments, name: str):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _first(builder, count):
    """Mask of the first ``count`` lanes."""
    return builder.icmp_signed("<", _LANES, _spread(builder, count, _LANES.type))


# -------------------------------------------------------------------------------------------------- values and memory
@_instruction
def load(typing, array, at):
    """The eight floats from ``at`` on."""

    def generate(context, builder, signature, args):
        return _read(builder, _pointer(context, builder, signature.args[0], *args))

    return _floats(array, _at), generate


@_instruction
def store(typing, array, at, value):
    """Write eight floats from ``at`` on."""

    def generate(context, builder, signature, args):
        _write(builder, args[2], _pointer(context, builder, signature.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, _at, _floats), generate


@_instruction
def load_part(typing, array, at, count):
    """The first ``count`` floats from ``at`` on, zeros behind them."""

    def generate(context, builder, signature, args):
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *args[:2]), _VECTOR.as_pointer())
        kinds = [_VECTOR.as_pointer(), _WORD, _MASK, _VECTOR]
        function = _named(builder, _VECTOR, kinds, "llvm.masked.load.v8f32.p0")
        zeros = ir.Constant(_VECTOR, [0.0] * WIDTH)
        return builder.call(function, [pointer, ir.Constant(_WORD, 4), _first(builder, args[2]), zeros])

    return _floats(array, _at, _at), generate


@_instruction
def store_part(typing, array, at, value, count):
    """Write the first ``count`` floats from ``at`` on."""

    def generate(context, builder, signature, args):
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *args[:2]), _VECTOR.as_pointer())
        kinds = [_VECTOR, _VECTOR.as_pointer(), _WORD, _MASK]
        function = _named(builder, ir.VoidType(), kinds, "llvm.masked.store.v8f32.p0")
        builder.call(function, [args[2], pointer, ir.Constant(_WORD, 4), _first(builder, args[3])])
        return context.get_dummy_value()

    return types.void(array, _at, _floats, _at), generate


@_instruction
def store_bytes(typing, array, at, value):
    """Write eight small whole numbers as uint8."""

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], *args[:2])
        small = builder.trunc(builder.fptosi(args[2], _WORDS), _BYTES)
        builder.store(small, builder.bitcast(pointer, _BYTES.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(array, _at, _floats), generate


@_instruction
def splat(typing, value):
    """One float32 in all eight places."""

    def generate(context, builder, signature, args):
        return _spread(builder, args[0])

    return _floats(types.float32), generate


@_instruction
def total(typing, value):
    """Sum of the eight."""

    def generate(context, builder, signature, args):
        function = _named(builder, _FLOAT, [_FLOAT, _VECTOR], "llvm.vector.reduce.fadd.v8f32")
        return builder.call(function, [ir.Constant(_FLOAT, -0.0), args[0]], fastmath=("reassoc",))

    return types.float32(_floats), generate


@_instruction
def larger(typing, best, value, otherwise, chosen):
    """``chosen`` where value > best or value is NaN, else ``otherwise``."""

    def generate(context, builder, signature, args):
        best, value, otherwise, chosen = args
        more = builder.or_(builder.fcmp_ordered(">", value, best), builder.fcmp_unordered("uno", value, value))
        return builder.select(more, chosen, otherwise)

    return _floats(_floats, _floats, _floats, _floats), generate


def _binary(sign: Any, name: str) -> None:
    @_instruction
    def apply(typing, a, b):
        def generate(context, builder, signature, args):
            return getattr(builder, name)(*args, flags=("contract",))

        return _floats(_floats, _floats), generate

    @overload(sign)
    def typed(a, b):
        if isinstance(a, _Floats) and isinstance(b, _Floats):
            return lambda a, b: apply(a, b)
        return None


for _sign, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _binary(_sign, _name)


@_instruction
def _split(typing, x):
    """x clipped to where exp is a normal number, as (n, 2^n) with n = round(x / ln 2), and the clipped x."""

    def generate(context, builder, signature, args):
        x = args[0]
        for sign, bound in (("<", -87.0), (">", 88.0)):
            limit = ir.Constant(_VECTOR, [bound] * WIDTH)
            x = builder.select(builder.fcmp_ordered(sign, x, limit), limit, x)
        rint = _named(builder, _VECTOR, [_VECTOR], "llvm.rint.v8f32")
        n = builder.call(rint, [builder.fmul(x, ir.Constant(_VECTOR, [1.44269504088896341] * WIDTH))])
        exponent = builder.add(builder.fptosi(n, _WORDS), ir.Constant(_WORDS, [127] * WIDTH))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(_WORDS, [23] * WIDTH)), _VECTOR)
        return context.make_tuple(builder, signature.return_type, [x, n, power])

    return types.UniTuple(_floats, 3)(_floats), generate


@njit(cache=True, inline="always", error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x)), with the polynomial of :mod:`lore.kernels_cpu`."""
    x, n, power = _split(splat(_f(0.0)) - x)
    r = x - n * splat(_f(0.693359375)) + n * splat(_f(2.12194440e-4))
    p = splat(_f(1.9875691500e-4)) * r + splat(_f(1.3981999507e-3))
    p = p * r + splat(_f(8.3334519073e-3))
    p = p * r + splat(_f(4.1665795894e-2))
    p = p * r + splat(_f(1.6666665459e-1))
    p = p * r + splat(_f(5.0000001201e-1))
    one = splat(_f(1.0))
    return one / (one + (p * r * r + r + one) * power)


# -------------------------------------------------------------------------------------------------- inner loops
def _convolve(pixels: int, vectors: int) -> Any:
    """For ``pixels`` outputs in a row and ``vectors`` vectors of channels, all of them in registers:
    out[p, c] = bias[c] + sum over rows, j < inner of x[row * row_step + p * step + j] * weight[row * inner + j, c]."""

    @_instruction
    def block(typing, x, x_at, step, row_step, weight, w_at, wide, rows, inner, bias, out, out_at):
        def generate(context, builder, signature, args):
            x, x_at, step, row_step, weight, w_at, wide, rows, inner, bias, out, out_at = args
            x_kind, w_kind, b_kind, o_kind = (signature.args[i] for i in (0, 4, 9, 10))
            sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(vectors)] for _ in range(pixels)]
            biases = _pointer(context, builder, b_kind, bias, w_at)
            for v in range(vectors):
                start = _read(builder, _ahead(builder, biases, v * WIDTH))
                for row in sums:
                    builder.store(start, row[v])
            shifts = [builder.mul(step, ir.Constant(_INDEX, p)) for p in range(pixels)]
            with cgutils.for_range(builder, rows) as outer:
                x_row = builder.add(x_at, builder.mul(outer.index, row_step))
                w_row = builder.add(w_at, builder.mul(builder.mul(outer.index, inner), wide))
                with cgutils.for_range(builder, inner) as loop:
                    taps = _pointer(context, builder, w_kind, weight, builder.add(w_row, builder.mul(loop.index, wide)))
                    ws = [_read(builder, _ahead(builder, taps, v * WIDTH)) for v in range(vectors)]
                    here = _pointer(context, builder, x_kind, x, builder.add(x_row, loop.index))
                    for shift, row in zip(shifts, sums, strict=True):
                        value = _spread(builder, builder.load(builder.gep(here, [shift])))
                        for w, place in zip(ws, row, strict=True):
                            builder.store(_multiply_add(builder, value, w, builder.load(place)), place)
            for p, row in enumerate(sums):
                at = builder.add(out_at, builder.mul(wide, ir.Constant(_INDEX, p)))
                target = _pointer(context, builder, o_kind, out, at)
                for v, place in enumerate(row):
                    _write(builder, builder.load(place), _ahead(builder, target, v * WIDTH))
            return context.get_dummy_value()

        return types.void(x, _at, _at, _at, weight, _at, _at, _at, _at, bias, out, _at), generate

    return block


_wide_8, _wide_4, _narrow_8, _narrow_4 = _convolve(8, 2), _convolve(4, 2), _convolve(8, 1), _convolve(4, 1)


@njit(cache=True, nogil=True, error_model="numpy")
def convolve(x, at, step, row_step, weight, wide, rows, inner, bias, out, width):
    """A row of outputs [width, wide] (wide a multiple of 8), where pixel p reads x[at + p * step + row * row_step + j].

    weight [rows * inner, wide], bias [wide]. Up to seven pixels behind the row are read and written too.
    """
    for c in range(0, wide, 2 * WIDTH):
        narrow = wide - c < 2 * WIDTH
        p = 0
        while p < width:
            here, there = at + p * step, p * wide + c
            if width - p > 4:
                if narrow:
                    _narrow_8(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
                else:
                    _wide_8(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
                p += 8
            else:
                if narrow:
                    _narrow_4(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
                else:
                    _wide_4(x, here, step, row_step, weight, c, wide, rows, inner, bias, out, there)
                p += 4


def _patches(rows: int, vectors: int, gather: bool) -> Any:
    """For items i of a list and a block of ``rows`` x ``vectors`` in registers: block += factors[i] * x[at(i)] with
    ``gather``, else x[at(i)] += factors[i] * block. at(i) = x_at + places[i], plus x_step per row of the block."""

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


_TALL, _BROAD = 6, 2


@_instruction
def add_outer(typing, x, x_at, x_step, x_row, grad, g_at, wide, g_row, rows, width, out, out_at):
    """out[j, c] += sum over rows, pixels p of x[row * x_row + p * x_step + j] * grad[row * g_row + p * wide + c] for
    six j and sixteen c, all of them in registers."""

    def generate(context, builder, signature, args):
        x, x_at, x_step, x_row, grad, g_at, wide, g_row, rows, width, out, out_at = args
        x_kind, g_kind, o_kind = (signature.args[i] for i in (0, 4, 10))
        places = []
        for j in range(_TALL):
            at = builder.add(out_at, builder.mul(wide, ir.Constant(_INDEX, j)))
            target = _pointer(context, builder, o_kind, out, at)
            places += [
                (_ahead(builder, target, v * WIDTH), cgutils.alloca_once(builder, _VECTOR), j, v) for v in range(_BROAD)
            ]
        for pointer, place, _, _ in places:
            builder.store(_read(builder, pointer), place)
        with cgutils.for_range(builder, rows) as outer:
            x_here = builder.add(x_at, builder.mul(outer.index, x_row))
            g_here = builder.add(g_at, builder.mul(outer.index, g_row))
            with cgutils.for_range(builder, width) as loop:
                source = _pointer(context, builder, x_kind, x, builder.add(x_here, builder.mul(loop.index, x_step)))
                slope = _pointer(context, builder, g_kind, grad, builder.add(g_here, builder.mul(loop.index, wide)))
                slopes = [_read(builder, _ahead(builder, slope, v * WIDTH)) for v in range(_BROAD)]
                values = [_spread(builder, builder.load(_ahead(builder, source, j))) for j in range(_TALL)]
                for _, place, j, v in places:
                    builder.store(_multiply_add(builder, values[j], slopes[v], builder.load(place)), place)
        for pointer, place, _, _ in places:
            _write(builder, builder.load(place), pointer)
        return context.get_dummy_value()

    return types.void(x, _at, _at, _at, grad, _at, _at, _at, _at, _at, out, _at), generate
