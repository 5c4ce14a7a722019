"""Sixteen float32 lanes as a Numba type, so that kernels say what they vectorise instead of hoping for it.

LLVM splits the lanes into whatever registers the processor has. Every operation is a single IEEE operation (``fma`` is
fused on every machine), and nothing carries fast-math flags: results do not depend on the optimiser's choices, on the
width of the registers, or on whether a kernel was compiled just now or loaded from Numba's cache.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16

_INT = ir.IntType(32)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_INTS = ir.VectorType(_INT, LANES)
_MANTISSA_BITS, _BIAS = 23, 127


class _VectorType(types.Type):
    def __init__(self):
        super().__init__(name="float32x16")


class _MaskType(types.Type):
    def __init__(self):
        super().__init__(name="bool16")


vector, mask = _VectorType(), _MaskType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _VECTOR)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _MASK)


def _operator(function, result, emit):
    """Give ``function`` a meaning for two vectors."""

    @infer_global(function)
    class _Template(ConcreteTemplate):
        cases = [signature(result, vector, vector)]  # noqa: RUF012  (Numba's protocol)

    @lower_builtin(function, vector, vector)
    def _lower(_context, builder, _signature, arguments):
        return emit(builder, *arguments)


_operator(operator.add, vector, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, vector, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, vector, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, vector, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.lt, mask, lambda builder, a, b: builder.fcmp_ordered("<", a, b))
_operator(operator.le, mask, lambda builder, a, b: builder.fcmp_ordered("<=", a, b))


def _lanes(numbers):
    return ir.Constant(ir.VectorType(_INT, len(numbers)), numbers)


def _every(number):
    return _lanes([number] * LANES)


def _call(builder, name, arguments):
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def splat(_typing, value):
    """The same float32 in every lane."""

    def emit(_context, builder, _signature, arguments):
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], _INT(0))
        return builder.shuffle_vector(first, nothing, _lanes([0] * LANES))

    return vector(types.float32), emit


@intrinsic
def fma(_typing, a, b, c):
    """``a * b + c``, rounded once."""

    def emit(_context, builder, _signature, arguments):
        return _call(builder, "llvm.fma.v16f32", arguments)

    return vector(vector, vector, vector), emit


@intrinsic
def negative(_typing, a):
    """The other sign."""

    def emit(_context, builder, _signature, arguments):
        return builder.fneg(arguments[0])

    return vector(vector), emit


@intrinsic
def absolute(_typing, a):
    """Absolute value."""

    def emit(_context, builder, _signature, arguments):
        return _call(builder, "llvm.fabs.v16f32", arguments)

    return vector(vector), emit


@intrinsic
def lesser(_typing, a, b):
    """The smaller of two numbers; ``b`` if ``a`` is NaN."""

    def emit(_context, builder, _signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), a, b)

    return vector(vector, vector), emit


@intrinsic
def larger(_typing, a, b):
    """The larger of two numbers; ``b`` if ``a`` is NaN."""

    def emit(_context, builder, _signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return vector(vector, vector), emit


@intrinsic
def root(_typing, a):
    """Square root."""

    def emit(_context, builder, _signature, arguments):
        return _call(builder, "llvm.sqrt.v16f32", arguments)

    return vector(vector), emit


@intrinsic
def ceiling(_typing, a):
    """The next whole number, upwards."""

    def emit(_context, builder, _signature, arguments):
        return _call(builder, "llvm.ceil.v16f32", arguments)

    return vector(vector), emit


@intrinsic
def nearest(_typing, a):
    """The nearest whole number, halves to the even one."""

    def emit(_context, builder, _signature, arguments):
        return _call(builder, "llvm.nearbyint.v16f32", arguments)

    return vector(vector), emit


@intrinsic
def power_of_two(_typing, a):
    """2 to a whole number from -126 to 127."""

    def emit(_context, builder, _signature, arguments):
        whole = builder.fptosi(arguments[0], _INTS)
        bits = builder.shl(builder.add(whole, _every(_BIAS)), _every(_MANTISSA_BITS))
        return builder.bitcast(bits, _VECTOR)

    return vector(vector), emit


@intrinsic
def exponent(_typing, a):
    """The whole number e with 2^e <= a < 2^(e + 1), of positive normal numbers."""

    def emit(_context, builder, _signature, arguments):
        bits = builder.lshr(builder.bitcast(arguments[0], _INTS), _every(_MANTISSA_BITS))
        return builder.sitofp(builder.sub(bits, _every(_BIAS)), _VECTOR)

    return vector(vector), emit


@intrinsic
def select(_typing, condition, a, b):
    """``a`` where the condition holds, else ``b``."""

    def emit(_context, builder, _signature, arguments):
        return builder.select(*arguments)

    return vector(mask, vector, vector), emit


@intrinsic
def both(_typing, a, b):
    """Where both conditions hold."""

    def emit(_context, builder, _signature, arguments):
        return builder.and_(*arguments)

    return mask(mask, mask), emit


@intrinsic
def any_lane(_typing, condition):
    """Whether the condition holds anywhere."""

    def emit(_context, builder, _signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.IntType(LANES)(0))

    return types.boolean(mask), emit


def _halves(builder, a, b, group):
    """Sums of neighbouring groups of lanes: ``a``'s in the lower half of the result, ``b``'s in the upper."""
    low = [lane for lane in range(2 * LANES) if lane // group % 2 == 0]
    high = [lane + group for lane in low]
    return builder.fadd(
        builder.shuffle_vector(a, b, _lanes(low)),
        builder.shuffle_vector(a, b, _lanes(high)),
    )


@intrinsic
def totals(_typing, vectors):
    """Lane i of the result is the sum over the lanes of the i-th vector of a tuple; further lanes are 0.

    Lanes are added by halving, always in the same order.
    """

    def emit(context, builder, signature, arguments):
        rest = [builder.extract_value(arguments[0], i) for i in range(len(signature.args[0]))]
        group = LANES // 2
        while group:
            if len(rest) % 2:
                rest.append(ir.Constant(_VECTOR, None))
            rest = [_halves(builder, rest[i], rest[i + 1], group) for i in range(0, len(rest), 2)]
            group //= 2
        return rest[0]

    return vector(vectors), emit


@intrinsic
def lane(_typing, a, index):
    """One lane as a scalar."""

    def emit(_context, builder, _signature, arguments):
        return builder.extract_element(*arguments)

    return types.float32(vector, types.intp), emit


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _is_row(array):
    return isinstance(array, types.Array) and array.dtype == types.float32 and array.ndim == 1 and array.layout == "C"


@intrinsic
def load(_typing, array, index):
    """Sixteen neighbours of a contiguous float32 array, from ``index`` on; no bounds check."""
    if not _is_row(array):
        return None

    def emit(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=4)

    return vector(array, types.intp), emit


@intrinsic
def store(_typing, array, index, value):
    """Write sixteen neighbours of a contiguous float32 array, from ``index`` on; no bounds check."""
    if not _is_row(array):
        return None

    def emit(context, builder, signature, arguments):
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic
def gather(_typing, array, index, stride):
    """Sixteen numbers of a contiguous float32 array, ``stride`` apart, from ``index`` on; no bounds check."""
    if not _is_row(array):
        return None

    def emit(context, builder, signature, arguments):
        array, index, stride = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        gathered = ir.Constant(_VECTOR, ir.Undefined)
        for i in range(LANES):
            number = builder.load(builder.gep(data, [index]), align=4)
            gathered = builder.insert_element(gathered, number, _INT(i))
            index = builder.add(index, stride)
        return gathered

    return vector(array, types.intp, types.intp), emit


@intrinsic
def scatter(_typing, array, index, stride, value):
    """Write sixteen numbers of a contiguous float32 array, ``stride`` apart, from ``index`` on; no bounds check."""
    if not _is_row(array):
        return None

    def emit(context, builder, signature, arguments):
        array, index, stride, value = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        for i in range(LANES):
            builder.store(builder.extract_element(value, _INT(i)), builder.gep(data, [index]), align=4)
            index = builder.add(index, stride)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), emit
