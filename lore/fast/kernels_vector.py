"""Vector types of eight and sixteen float32 for compiled loops (numba), and their operations.

Numba compiles scalar code and leaves it to LLVM to make vector instructions of it, which it does not do for short rows
of channels; here loops name the vectors. Arrays are flat, contiguous float32; ``at`` is the index of a first element.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from lore.compiled import njit

__all__ = [
    "WIDE",
    "WIDTH",
    "exp",
    "fill",
    "inline",
    "larger",
    "largest",
    "load",
    "load_part",
    "load_part_wide",
    "load_wide",
    "loop",
    "sigmoid",
    "splat",
    "splat_wide",
    "store",
    "store_bytes",
    "store_part",
    "total",
]

WIDTH = 8
WIDE = 16 if get_host_cpu_features().get("avx512f") else 8
"""Floats that a register of this processor holds."""

_f = np.float32
_FAST = {"contract", "reassoc", "nsz", "arcp"}
_FLOAT, _WORD, _INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_at = types.int64


class _Floats(types.Type):
    def __init__(self, width: int) -> None:
        super().__init__(name=f"float32x{width}")
        self.width = width


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(_FLOAT, kind.width))


_instruction: Any = intrinsic


# -------------------------------------------------------------------------------------------------- pieces of LLVM's IR
def _pointer(context, builder, kind, array, at):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _ahead(builder, pointer, elements: int):
    return builder.gep(pointer, [ir.Constant(_INDEX, elements)])


def _read(builder, pointer, kind: Any = _VECTOR):
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = 4
    return value


def _write(builder, value, pointer) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = 4


def _spread(builder, scalar, kind: Any = _VECTOR):
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_WORD, kind.count), [0] * kind.count))


def _multiply_add(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _named(builder, result, arguments, name: str):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _like(kind, value: float):
    return ir.Constant(kind, [value] * kind.count)


def _first(builder, count, width: int):
    """Mask of the first ``count`` lanes."""
    lanes = ir.Constant(ir.VectorType(_INDEX, width), list(range(width)))
    return builder.icmp_signed("<", lanes, _spread(builder, count, lanes.type))


# -------------------------------------------------------------------------------------------------- values and memory
def _from_memory(width: int) -> tuple[Any, Any, Any]:
    floats, vector = _Floats(width), ir.VectorType(_FLOAT, width)

    @_instruction
    def load(typing, array, at):
        def generate(context, builder, signature, args):
            return _read(builder, _pointer(context, builder, signature.args[0], *args), vector)

        return floats(array, _at), generate

    @_instruction
    def load_part(typing, array, at, count):
        def generate(context, builder, signature, args):
            pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *args[:2]), vector.as_pointer())
            kinds = [vector.as_pointer(), _WORD, ir.VectorType(ir.IntType(1), width), vector]
            function = _named(builder, vector, kinds, f"llvm.masked.load.v{width}f32.p0")
            given = [pointer, ir.Constant(_WORD, 4), _first(builder, args[2], width), _like(vector, 0.0)]
            return builder.call(function, given)

        return floats(array, _at, _at), generate

    @_instruction
    def splat(typing, value):
        def generate(context, builder, signature, args):
            return _spread(builder, args[0], vector)

        return floats(types.float32), generate

    return load, load_part, splat


# load: x[at : at + width]; load_part: the same with zeros from element ``count`` on; splat: one number in all elements.
load, load_part, splat = _from_memory(WIDTH)
load_wide, load_part_wide, splat_wide = _from_memory(WIDE)


@_instruction
def store(typing, array, at, value):
    """array[at : at + width] = value."""

    def generate(context, builder, signature, args):
        _write(builder, args[2], _pointer(context, builder, signature.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, _at, value), generate


@_instruction
def store_part(typing, array, at, value, count):
    """array[at : at + count] = the first ``count`` elements of value."""

    def generate(context, builder, signature, args):
        vector = args[2].type
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], *args[:2]), vector.as_pointer())
        kinds = [vector, vector.as_pointer(), _WORD, ir.VectorType(ir.IntType(1), vector.count)]
        function = _named(builder, ir.VoidType(), kinds, f"llvm.masked.store.v{vector.count}f32.p0")
        builder.call(function, [args[2], pointer, ir.Constant(_WORD, 4), _first(builder, args[3], vector.count)])
        return context.get_dummy_value()

    return types.void(array, _at, value, _at), generate


@_instruction
def store_bytes(typing, array, at, value):
    """array[at : at + width] = value, whole numbers of 0..255, as uint8."""

    def generate(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], *args[:2])
        words, some = (ir.VectorType(ir.IntType(n), args[2].type.count) for n in (32, 8))
        small = builder.trunc(builder.fptosi(args[2], words), some)
        builder.store(small, builder.bitcast(pointer, some.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(array, _at, value), generate


@_instruction
def fill(typing, like, value):
    """One number in all elements of a vector as wide as ``like``."""

    def generate(context, builder, signature, args):
        return _spread(builder, args[1], args[0].type)

    return like(like, types.float32), generate


@_instruction
def total(typing, value):
    """Sum of all elements."""

    def generate(context, builder, signature, args):
        name = f"llvm.vector.reduce.fadd.v{args[0].type.count}f32"
        function = _named(builder, _FLOAT, [_FLOAT, args[0].type], name)
        return builder.call(function, [ir.Constant(_FLOAT, -0.0), args[0]], fastmath=("reassoc",))

    return types.float32(value), generate


@_instruction
def _most(typing, value):
    def generate(context, builder, signature, args):
        function = _named(builder, _FLOAT, [args[0].type], f"llvm.vector.reduce.fmax.v{args[0].type.count}f32")
        return builder.call(function, args)

    return types.float32(value), generate


@_instruction
def _maximum(typing, a, b):
    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, b), generate


@njit(cache=True, inline="always", error_model="numpy")
def largest(x):
    """The largest element of a row, NaN left out. (LLVM makes no vectors of a plain loop over ``max``.)"""
    count = len(x)
    if count < 2 * WIDE:
        top = x[0]
        for j in range(1, count):
            top = max(top, x[j])
        return top
    one, other = load_wide(x, 0), load_wide(x, WIDE)
    for v in range(2 * WIDE, count - 2 * WIDE + 1, 2 * WIDE):
        one, other = _maximum(one, load_wide(x, v)), _maximum(other, load_wide(x, v + WIDE))
    one, other = _maximum(one, load_wide(x, count - 2 * WIDE)), _maximum(other, load_wide(x, count - WIDE))
    return _most(_maximum(one, other))


@_instruction
def larger(typing, best, value, otherwise, chosen):
    """``chosen`` where value > best or value is NaN, else ``otherwise``."""

    def generate(context, builder, signature, args):
        best, value, otherwise, chosen = args
        more = builder.or_(builder.fcmp_ordered(">", value, best), builder.fcmp_unordered("uno", value, value))
        return builder.select(more, chosen, otherwise)

    return best(best, value, otherwise, chosen), generate


def _binary(sign: Any, name: str) -> None:
    @_instruction
    def apply(typing, a, b):
        def generate(context, builder, signature, args):
            return getattr(builder, name)(*args, flags=("contract",))

        return a(a, b), generate

    @overload(sign)
    def typed(a, b):
        if isinstance(a, _Floats) and a == b:
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
        vector, words = x.type, ir.VectorType(_WORD, x.type.count)
        for sign, bound in (("<", -87.0), (">", 88.0)):
            limit = _like(vector, bound)
            x = builder.select(builder.fcmp_ordered(sign, x, limit), limit, x)
        rint = _named(builder, vector, [vector], f"llvm.rint.v{vector.count}f32")
        n = builder.call(rint, [builder.fmul(x, _like(vector, 1.44269504088896341))])
        exponent = builder.add(builder.fptosi(n, words), _like(words, 127))
        power = builder.bitcast(builder.shl(exponent, _like(words, 23)), vector)
        return context.make_tuple(builder, signature.return_type, [x, n, power])

    return types.UniTuple(x, 3)(x), generate


@njit(cache=True, inline="always", error_model="numpy")
def exp(x):
    """exp of a vector, within 2 ulp: a polynomial of degree six after range reduction (Cephes expf)."""
    x, n, power = _split(x)
    r = x - n * fill(x, _f(0.693359375)) + n * fill(x, _f(2.12194440e-4))
    p = fill(x, _f(1.9875691500e-4)) * r + fill(x, _f(1.3981999507e-3))
    p = p * r + fill(x, _f(8.3334519073e-3))
    p = p * r + fill(x, _f(4.1665795894e-2))
    p = p * r + fill(x, _f(1.6666665459e-1))
    p = p * r + fill(x, _f(5.0000001201e-1))
    return (p * r * r + r + fill(x, _f(1.0))) * power


@njit(cache=True, inline="always", error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x)) of a vector."""
    one = fill(x, _f(1.0))
    return one / (one + exp(fill(x, _f(0.0)) - x))


def loop(function: Any) -> Any:
    """A compiled loop that Python calls: it releases the GIL, and its machine code is cached on disk."""
    return njit(function, cache=True, nogil=True, error_model="numpy", fastmath=_FAST)


def inline(function: Any) -> Any:
    """A function that only compiled loops call."""
    return njit(function, cache=True, error_model="numpy", fastmath=_FAST)
