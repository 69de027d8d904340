"""Sine and cosine that are right on every GPU.

WGSL grants its own only an absolute error of 2^-11, and only within [-π, π] (W3C WGSL, "Accuracy of built-in
functions"). The sinusoids that tell a UNet its timestep have arguments up to a thousand, and drivers do differ there:
SwiftShader's was seen 3e-4 away, and a picture drawn from it up to 45/255 of a colour.

So the argument is brought into one eighth of a turn in integers, which no driver may round or reorder, and what is left
is a short series. The result is within 3e-7 of the truth for arguments of up to a thousand and 1e-6 up to a million;
beyond, and for an infinite or NaN argument, it is some number in [-1, 1].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tvm import relax, te, tirx

if TYPE_CHECKING:
    from tvm.ir import PrimExpr

_TURN = 1 << 27
"""Units in a turn: 5e-8 radians each. TVM counts on integers that never overflow, and so is what follows."""
_RADIAN = _TURN / math.tau
_DIGITS = [round(16**k * _RADIAN) % _TURN for k in range(5)]
"""Units in 1, 16, 256, 4096 and 65536 radians, without their whole turns."""

_SINE = [1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880]
_COSINE = [1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320]
"""Taylor's series in the square of the angle; at π/4 the first terms left out are 2e-9 and 3e-8."""


def legalize_sin(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``relax.sin`` as TensorIR; see `tvm.relax.transform.LegalizeOps`."""
    return builder.call_te(sin, call.args[0], primfunc_name_hint="sin")


def legalize_cos(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """``relax.cos`` as TensorIR; see `tvm.relax.transform.LegalizeOps`."""
    return builder.call_te(cos, call.args[0], primfunc_name_hint="cos")


def sin(x: te.Tensor) -> te.Tensor:
    """The sine of each element, in radians, in the dtype of ``x``."""
    turns = te.compute(x.shape, lambda *i: _turns(tirx.abs(x(*i).astype("float32"))), name="turns")

    def value(*i: tirx.Var) -> PrimExpr:
        sine = _sine(turns(*i))
        return tirx.Select(x(*i) < tirx.const(0, x.dtype), -sine, sine).astype(x.dtype)

    return te.compute(x.shape, value, name="sine")


def cos(x: te.Tensor) -> te.Tensor:
    """The cosine of each element, in radians, in the dtype of ``x``."""
    turns = te.compute(x.shape, lambda *i: _turns(tirx.abs(x(*i).astype("float32"))), name="turns")
    return te.compute(x.shape, lambda *i: _sine(turns(*i) + _TURN // 4).astype(x.dtype), name="cosine")


def _turns(x: PrimExpr) -> PrimExpr:
    """An angle of ``x`` ≥ 0 radians in units, between 0 and six turns (int32)."""
    floor = tirx.floor(x)
    whole = floor.astype("int32")
    units = ((x - floor) * tirx.const(_RADIAN, "float32")).astype("int32")
    for place, digit in enumerate(_DIGITS):
        units += tirx.truncmod(tirx.truncmod(tirx.truncdiv(whole, 16**place), 16) * digit, _TURN)
    return units


def _sine(turns: PrimExpr) -> PrimExpr:
    """The sine of an angle of ``turns`` ≥ 0 units (int32), as float32."""
    # To the nearest quarter turn: what is left is between -π/4 and π/4.
    quarter = tirx.truncdiv(turns + _TURN // 8, _TURN // 4)
    angle = (turns - quarter * (_TURN // 4)).astype("float32") * tirx.const(1 / _RADIAN, "float32")
    square = angle * angle
    sine = tirx.Select(tirx.truncmod(quarter, 2).equal(1), _series(_COSINE, square), angle * _series(_SINE, square))
    return tirx.Select(tirx.truncmod(quarter, 4) >= 2, -sine, sine)


def _series(terms: list[float], square: PrimExpr) -> PrimExpr:
    value = tirx.const(terms[-1], "float32")
    for term in terms[-2::-1]:
        value = value * square + tirx.const(term, "float32")
    return value
