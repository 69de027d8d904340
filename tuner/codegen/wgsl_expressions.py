"""Expressions of lowered TensorIR as WGSL text, with the scope that each belongs to.

Integers of a kernel that computes no negative ones are ``u32``: a division by a constant is then a shift or one
multiplication, and the browser's clamp of an index is one comparison. TVM's 64-bit integers are addresses, and fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tvm import tirx
from tvm.ir import Call, Op
from tvm.sym import Analyzer

from .lowered_kernel import dtype_of
from .wgsl_layout import SCALARS, EmitError

_BINARY = {"Add": "+", "Sub": "-", "Mul": "*"}
_BITS = {"BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^"}
_SHIFTS = {"LShift": "<<", "RShift": ">>"}
_COMPUTED = frozenset(
    {*_BINARY, *_BITS, *_SHIFTS, "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max", "Select", "Cast", "Call"}
)
"""Expressions that are worth a name where they occur twice."""
_COMPARE = {"EQ": "==", "NE": "!=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}
_LOGIC = {"And": "&", "Or": "|"}
# Without short circuit: operands have no side effects, and a load beyond its buffer is harmless in WebGPU (W3C WGSL,
# "Out-of-bounds access"). Branches for each element of a padded convolution cost SwiftShader gigabytes to compile.

_FUNCTIONS = {
    **{name: name for name in ("exp", "exp2", "log", "log2", "sqrt", "sin", "cos", "tan", "tanh", "pow", "fma")},
    **{name: name for name in ("floor", "ceil", "trunc", "round", "asin", "acos", "atan", "sinh", "cosh", "abs")},
    "fabs": "abs",
    "rsqrt": "inverseSqrt",
}
"""WGSL's functions by TVM's operators."""


class Text(NamedTuple):
    """WGSL of an expression. ``depth``: the innermost scope whose variables it uses, 0 for the function's.

    ``atom``: it needs no parentheses. ``loads``: it reads a buffer, so it must not move.
    """

    text: str
    depth: int = 0
    atom: bool = False
    loads: bool = False

    @property
    def operand(self) -> str:
        """The text as an operand of a binary operator."""
        return self.text if self.atom else f"({self.text})"


class Expressions:
    """Writes expressions.

    Args:
        analyzer: knows the bounds of the variables.
        integer: WGSL's type of integers, ``u32`` or ``i32``.
        half: WGSL's type of half floats, ``f16`` or ``f32``.
        load: writes a load of some lanes.
        bind: gives a value a name, before the statement that is being written.
        hoist: gives a value a name in the scope that it belongs to, where that lies outside.
        share: gives a value a mark that becomes a name where the same value occurs again.
    """

    def __init__(
        self,
        analyzer: Analyzer,
        integer: str,
        half: str,
        load: Callable[[Any], Text],
        bind: Callable[[Text], Text],
        hoist: Callable[[Text], Text],
        share: Callable[[Text], Text],
    ) -> None:
        self._analyzer = analyzer
        self.integer = integer
        self._half = half
        self.masks = True
        """Whether the remainder of a power of two is written as a mask of bits."""
        self.variables: dict[Any, Text] = {}
        self._load = load
        self._bind = bind
        self.hoist = hoist
        self._share = share

    def type_of(self, value: Any) -> str:
        """Return WGSL's type of ``value``."""
        dtype, lanes = dtype_of(value)
        return _vector(self.scalar(dtype), lanes)

    def scalar(self, dtype: str) -> str:
        """Return WGSL's scalar type of TVM's ``dtype``."""
        if dtype == "bool":
            return "bool"
        if dtype in ("int32", "int64"):
            return self.integer
        if dtype == "float16":
            return self._half
        if dtype not in SCALARS:
            raise EmitError(f"the kernel computes with {dtype}, which WGSL does not have")
        return SCALARS[dtype]

    def write(self, value: Any) -> Text:
        """Return ``value`` as WGSL."""
        text = self._written(value)
        if type(value).__name__ not in _COMPUTED or not (text.loads or dtype_of(value)[0].startswith("float")):
            return text
        return self._share(text)

    def _written(self, value: Any) -> Text:
        kind = type(value).__name__
        writer = getattr(self, f"_write_{kind.lower()}", None)
        if writer is not None:
            written: Text = writer(value)
            return written
        if kind in _BINARY:
            return self._binary(value.a, _BINARY[kind], value.b, splat=False)
        if kind in _COMPARE:
            return self._binary(value.a, _COMPARE[kind], value.b, splat=True)
        if kind in _LOGIC:
            return self._binary(value.a, _LOGIC[kind], value.b, splat=True)
        if kind in _BITS:
            return self._binary(value.a, _BITS[kind], value.b, splat=True)
        if kind in _SHIFTS:
            return self._shifted(value, _SHIFTS[kind])
        raise EmitError(f"the kernel holds a {kind} expression, for which no WGSL is known")

    def constant(self, number: int) -> str:
        """Return an integer literal."""
        if self.integer == "u32":
            return f"{number % (1 << 32)}u"
        return f"{number}i"

    def _binary(self, a: Any, operator: str, b: Any, *, splat: bool) -> Text:
        if operator == "-" and self.integer == "u32" and isinstance(b, tirx.IntImm) and int(b.value) < 0:
            operator, b = "+", tirx.IntImm(str(b.ty.dtype), -int(b.value))
        elif operator == "+" and isinstance(b, tirx.IntImm) and int(b.value) < 0:
            operator, b = "-", tirx.IntImm(str(b.ty.dtype), -int(b.value))
        left, right = (self.write(side) if splat else self._unsplatted(side) for side in (a, b))
        if not splat and type(a).__name__ == "Broadcast" and type(b).__name__ == "Broadcast":
            left = self.write(a)
        return _join(f"{left.operand} {operator} {right.operand}", left, right)

    def _shifted(self, value: Any, operator: str) -> Text:
        left, right = self.write(value.a), self.write(value.b)
        dtype, lanes = dtype_of(value.b)
        places = right.operand if dtype == "uint32" else f"{_vector('u32', lanes)}({right.text})"
        return _join(f"{left.operand} {operator} {places}", left, right)

    def _unsplatted(self, value: Any) -> Text:
        """Return a broadcast scalar as it is: WGSL's arithmetic takes a scalar beside a vector."""
        return self.write(value.value if type(value).__name__ == "Broadcast" else value)

    def _call(self, name: str, *values: Any) -> Text:
        parts = [self.write(value) for value in values]
        return _join(f"{name}({', '.join(part.text for part in parts)})", *parts, atom=True)

    def _write_var(self, value: Any) -> Text:
        try:
            return self.variables[value]
        except KeyError:
            raise EmitError(f"the kernel uses {value.name}, which it is not given") from None

    def _write_intimm(self, value: Any) -> Text:
        number = int(value.value)
        dtype, _ = dtype_of(value)
        if dtype == "bool":
            return Text("true" if number else "false", atom=True)
        if dtype == "uint32":
            return Text(f"{number}u", atom=True)
        return Text(self.constant(number), atom=number >= 0 or self.integer == "u32")

    def _write_floatimm(self, value: Any) -> Text:
        dtype, _ = dtype_of(value)
        number = float(value.value)
        if not math.isfinite(number):
            raise EmitError(f"the kernel needs the constant {number}, which WGSL cannot express")
        suffix, kind = ("h", np.float16) if dtype == "float16" else ("f", np.float32)
        digits = str(kind(number))
        if abs(float(digits)) > float(np.finfo(kind).max):
            # The shortest digits of the largest number lie above it, and Tint refuses them.
            digits = repr(float(kind(number)))
        return Text(f"{digits}{suffix}", atom=number >= 0)

    def _write_floordiv(self, value: Any) -> Text:
        a = self.hoist(self.write(value.a))
        divisor = _power_of_two(value.b)
        if divisor is not None:
            return _join(f"{a.operand} >> {divisor}u", a)  # arithmetic where it is signed, as floor division is
        return self._division(value, "/")

    def _write_floormod(self, value: Any) -> Text:
        a = self.hoist(self.write(value.a))
        if self.masks and _power_of_two(value.b) is not None:
            return _join(f"{a.operand} & {self.constant(int(value.b.value) - 1)}", a)
        return self._division(value, "%")

    def _division(self, value: Any, operator: str) -> Text:
        a, b = self.hoist(self.write(value.a)), self.write(value.b)
        if self.integer == "u32":
            return _join(f"{a.operand} {operator} {b.operand}", a, b)
        if self.never_negative(value.a) and self.never_negative(value.b):
            return _join(f"i32(u32({a.text}) {operator} u32({b.text}))", a, b, atom=True)
        # Floor division from WGSL's, which truncates; a constant divisor is positive.
        fix = f"select(0i, {'1i' if operator == '/' else b.operand}, {a.operand} % {b.operand} < 0i)"
        return _join(f"{a.operand} {operator} {b.operand} {'-' if operator == '/' else '+'} {fix}", a, b)

    def _write_div(self, value: Any) -> Text:
        left, right = self._unsplatted(value.a), self._unsplatted(value.b)
        return _join(f"{left.operand} / {right.operand}", left, right)

    def _write_mod(self, value: Any) -> Text:
        return self._binary(value.a, "%", value.b, splat=True)

    def _write_min(self, value: Any) -> Text:
        return self._call("min", value.a, value.b)

    def _write_max(self, value: Any) -> Text:
        return self._call("max", value.a, value.b)

    def _write_not(self, value: Any) -> Text:
        a = self.write(value.a)
        return _join(f"!{a.operand}", a)

    def _write_select(self, value: Any) -> Text:
        return self._choice(value.condition, value.true_value, value.false_value)

    def _choice(self, condition: Any, yes: Any, no: Any) -> Text:
        if _widens_halves(yes) and _widens_halves(no):  # what is chosen is converted, not both
            return self._converted(yes, yes.value, self._choice(condition, yes.value, no.value))
        # A scalar condition chooses between whole vectors.
        test, first, second = self.hoist(self._unsplatted(condition)), self.write(yes), self.write(no)
        return _join(f"select({second.text}, {first.text}, {test.text})", test, first, second, atom=True)

    def _write_cast(self, value: Any) -> Text:
        return self._converted(value, value.value, self.write(value.value))

    def _converted(self, value: Any, given: Any, inner: Text) -> Text:
        """Return ``inner``, the text of ``given``, in the type of ``value``."""
        if self.type_of(value) == self.type_of(given):
            return inner
        return _join(f"{self.type_of(value)}({inner.text})", inner, atom=True)

    def _write_broadcast(self, value: Any) -> Text:
        inner = self.write(value.value)
        return _join(f"{self.type_of(value)}({inner.text})", inner, atom=True)

    def _write_ramp(self, value: Any) -> Text:
        lanes = [value.base + lane * value.stride for lane in range(int(value.lanes))]
        return self._call(self.type_of(value), *lanes)

    def _write_tensorload(self, value: Any) -> Text:
        return self._load(value)

    def _write_call(self, value: Any) -> Text:
        name = str(getattr(value.op, "name", value.op)).rpartition(".")[2]
        args = list(value.args)
        if name == "call_pure_extern":  # a function in WGSL's own words
            name, args = str(args[0].value), args[1:]
        if name == "if_then_else":
            return self._choice(*args)
        if name == "likely":
            return self.write(args[0])
        if name == "sigmoid":
            inner = self.write(args[0])
            one = f"{self.type_of(args[0])}(1.0)"
            return _join(f"{one} / ({one} + exp(-{inner.operand}))", inner)
        if name in _FUNCTIONS:
            return self._call(_FUNCTIONS[name], *args)
        return self._lowered(value)

    def _lowered(self, call: Any) -> Text:
        """Return a function that WGSL lacks by TVM's formula for it, its arguments computed once."""
        lower = call.op.get_attr("webgpu.FLowerIntrinsic") if isinstance(call.op, Op) else None
        if lower is None:
            raise EmitError(f"the kernel calls {call.op}, which WGSL does not have")
        arguments = []
        for value in call.args:
            argument = tirx.Var("x", str(value.ty.dtype))
            self.variables[argument] = self._bind(self.write(value))
            arguments.append(argument)
        return self.write(lower(Call(call.op, arguments, call.attrs, call.ty_args, ret_ty=call.ty)))

    def never_negative(self, value: Any) -> bool:
        """Return whether an integer is known to be 0 or more."""
        return int(self._analyzer.const_int_bound(value).min_value) >= 0


def _widens_halves(value: Any) -> bool:
    if type(value).__name__ != "Cast":
        return False
    return str(value.ty.dtype).startswith("float32") and str(value.value.ty.dtype).startswith("float16")


def _vector(scalar: str, lanes: int) -> str:
    return scalar if lanes == 1 else f"vec{lanes}<{scalar}>"


def _power_of_two(value: Any) -> int | None:
    """Return log2 of a constant power of two."""
    if not isinstance(value, tirx.IntImm):
        return None
    number = int(value.value)
    return number.bit_length() - 1 if number > 0 and number & (number - 1) == 0 else None


def _join(text: str, *parts: Text, atom: bool = False) -> Text:
    return Text(text, max((p.depth for p in parts), default=0), atom, any(p.loads for p in parts))
