"""Sine and cosine with a small error on every GPU.

WGSL guarantees only an absolute error of 2^-11, and only within [-π, π] (W3C WGSL, "Accuracy of built-in functions").
A UNet's timestep embedding has arguments up to 1000, where drivers differ: SwiftShader's error was 3e-4, which changed
an image by up to 45/255.

Here the argument is reduced to one eighth of a turn in integers, which no driver may round or reorder, and the rest is
a short series. The absolute error is at most 3e-7 for arguments up to 1000 and 1e-6 up to a million. Beyond, and for an
infinite or NaN argument, the result is some number in [-1, 1].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tvm import relax, te, tirx

if TYPE_CHECKING:
    from tvm.ir import PrimExpr

_TURN = 1 << 27
"""Units in a turn, 5e-8 radians each. TVM assumes that integers do not overflow; with this value none does."""
_RADIAN = _TURN / math.tau
_DIGITS = [round(16**k * _RADIAN) % _TURN for k in range(5)]
"""Units in 1, 16, 256, 4096 and 65536 radians, modulo a turn."""

_SINE = [1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880]
_COSINE = [1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320]
"""Coefficients of Taylor's series in the square of the angle; at π/4 the next terms are 2e-9 and 3e-8."""


def legalize_sin(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Legalize ``relax.sin`` to TensorIR (see `tvm.relax.transform.LegalizeOps`)."""
    return builder.call_te(sin, call.args[0], primfunc_name_hint="sin")


def legalize_cos(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Legalize ``relax.cos`` to TensorIR (see `tvm.relax.transform.LegalizeOps`)."""
    return builder.call_te(cos, call.args[0], primfunc_name_hint="cos")


def sin(x: te.Tensor) -> te.Tensor:
    """Return the sine of each element, in radians, in the dtype of ``x``."""
    turns = te.compute(x.shape, lambda *i: _turns(tirx.abs(x(*i).astype("float32"))), name="turns")

    def value(*i: tirx.Var) -> PrimExpr:
        sine = _sine(turns(*i))
        return tirx.Select(x(*i) < tirx.const(0, x.dtype), -sine, sine).astype(x.dtype)

    return te.compute(x.shape, value, name="sine")


def cos(x: te.Tensor) -> te.Tensor:
    """Return the cosine of each element, in radians, in the dtype of ``x``."""
    turns = te.compute(x.shape, lambda *i: _turns(tirx.abs(x(*i).astype("float32"))), name="turns")
    return te.compute(x.shape, lambda *i: _sine(turns(*i) + _TURN // 4).astype(x.dtype), name="cosine")


def _turns(x: PrimExpr) -> PrimExpr:
    """Return an angle of ``x`` ≥ 0 radians in units, between 0 and six turns (int32)."""
    floor = tirx.floor(x)
    whole = floor.astype("int32")
    units = ((x - floor) * tirx.const(_RADIAN, "float32")).astype("int32")
    for place, digit in enumerate(_DIGITS):
        units += tirx.truncmod(tirx.truncmod(tirx.truncdiv(whole, 16**place), 16) * digit, _TURN)
    return units


def _sine(turns: PrimExpr) -> PrimExpr:
    """Return the sine of an angle of ``turns`` ≥ 0 units (int32), as float32."""
    # The angle relative to the nearest quarter turn is between -π/4 and π/4.
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
