"""The formats of weights in memory: what is stored, how it is encoded on the CPU and decoded in a kernel.

Half floats are stored as such. A quantised weight is stored as integers of 8 or 4 bits in 32-bit words, in row-major
order from the lowest bits, and as a float16 scale, of either sign, for each group of `GROUP` consecutive terms of a
sum::

    weight = (integer − 2^(bits − 1)) · scale / 2^10

The factor keeps the scales of small weights away from float16's subnormal numbers, which GPUs may flush to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import te, tirx

from ....support.enums import WeightPrecision
from ....support.errors import CaptureError
from ...ir import TensorSpec, WeightFormat

GROUP = 32
"""Terms that share a scale: 8.5 and 4.5 bits a weight."""

_BITS = {WeightPrecision.Q8: 8, WeightPrecision.Q4: 4}

_SCALE_FACTOR = 1024.0

_ROWS = 1 << 22
"""Weights that are encoded at once, to bound the memory that it takes."""


def stored_specs(name: str, weight: WeightFormat, dtype: str = "float32") -> list[TensorSpec]:
    """Return the tensors in which a weight called ``name`` is stored: one, or words and scales.

    ``dtype`` is that of a weight which is stored as it is.
    """
    if weight.precision not in _BITS:
        stored = "float16" if weight.precision is WeightPrecision.F16 else dtype
        return [TensorSpec(name, weight.shape, stored)]
    outer, terms, inner = weight.extents
    words = outer * terms * inner * _BITS[weight.precision] // 32
    return [
        TensorSpec(name, (words,), "uint32"),
        TensorSpec(f"{name}_scales", (outer * (terms // GROUP) * inner,), "float16"),
    ]


def can_quantise(weight: WeightFormat) -> bool:
    """Return whether sums consist of whole groups, and the integers fill whole words."""
    _, terms, _ = weight.extents
    return terms > 0 and terms % GROUP == 0


def decoder(weight: WeightFormat, index_dtype: str = "int64") -> tirx.PrimFunc:
    """Return a function of the stored tensors that computes the weight in float32, with indices of ``index_dtype``."""

    def extents_of(spec: TensorSpec | WeightFormat) -> list[tirx.IntImm]:
        return [tirx.IntImm(index_dtype, extent) for extent in spec.shape]

    shape = extents_of(weight)
    stored = [te.placeholder(extents_of(s), s.dtype, name=s.name) for s in stored_specs("stored", weight)]
    if weight.precision not in _BITS:
        value = te.compute(shape, lambda *place: stored[0](*place).astype("float32"), name="decode")
        return te.create_prim_func([*stored, value])
    bits = _BITS[weight.precision]
    per_word, middle = 32 // bits, 1 << (bits - 1)
    first, end = weight.terms
    _, terms, inner = weight.extents

    def dequantised(*place: Any) -> Any:
        parts = (place[:first], place[first:end], place[end:])
        extents = (weight.shape[:first], weight.shape[first:end], weight.shape[end:])
        o, t, n = (_flat(part, sizes) for part, sizes in zip(parts, extents, strict=True))
        index = (o * terms + t) * inner + n
        shift = (index % per_word * bits).astype("uint32")
        integer = tirx.bitwise_and(
            tirx.shift_right(stored[0][index // per_word], shift), tirx.const(2 * middle - 1, "uint32")
        )
        scale = stored[1][(o * (terms // GROUP) + t // GROUP) * inner + n].astype("float32")
        return (integer.astype("float32") - float(middle)) * (scale * (1 / _SCALE_FACTOR))

    return te.create_prim_func([*stored, te.compute(shape, dequantised, name="decode")])


def _flat(place: Sequence[Any], extents: Sequence[int]) -> Any:
    total: Any = 0
    for index, extent in zip(place, extents, strict=True):
        total = total * extent + index
    return total


def encode(weight: WeightFormat, values: np.ndarray) -> list[np.ndarray]:
    """Return the arrays of `stored_specs` for float32 ``values`` of the weight's shape.

    Raises:
        CaptureError: values are too large for the format.
    """
    if weight.precision is WeightPrecision.F32:
        return [values]
    if weight.precision is WeightPrecision.F16:
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        return [_finite(halves, values)]
    bits = _BITS[weight.precision]
    outer, terms, inner = weight.extents
    groups = values.reshape(outer * (terms // GROUP), GROUP, inner)
    scales = np.empty((groups.shape[0], inner), np.float16)
    digits = np.empty(groups.shape, np.uint8)
    step = max(1, _ROWS // (GROUP * inner))
    for start in range(0, len(groups), step):
        part = slice(start, start + step)
        scales[part], digits[part] = _quantised(groups[part], bits)
    flat: np.ndarray = digits.reshape(-1)
    if bits == 4:
        flat = flat[0::2] | flat[1::2] << 4
    return [flat.view("<u4"), _finite(scales, values).reshape(-1)]


def _quantised(groups: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scales and integers of groups along axis 1; of several scales those with the least squared error.

    The largest weight is given the sign of the least integer, which is one further from zero than the greatest.
    """
    middle = 1 << (bits - 1)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1)
    best: tuple[np.ndarray, ...] = ()
    for levels in _LEVELS[bits]:
        with np.errstate(over="ignore"):
            scale = (largest * (-_SCALE_FACTOR / levels)).astype(np.float16)
        step = scale.astype(np.float32) / np.float32(_SCALE_FACTOR)
        integers = np.rint(groups / np.where(step == 0, np.float32(1), step)).clip(-middle, middle - 1)
        error = np.square(integers * step - groups).sum(axis=1, keepdims=True)
        tried: tuple[np.ndarray, ...] = (error, scale, integers)
        if best:
            better = error < best[0]
            tried = tuple(np.where(better, new, old) for new, old in zip(tried, best, strict=True))
        best = tried
    _, scale, integers = best
    return scale[:, 0], (integers + middle).astype(np.uint8)


_LEVELS = {8: (128.0,), 4: (8.0, 7.6, 8.5, 9.0)}
"""Steps to the largest weight of a group that are tried; beyond what an integer holds, it is cut off."""


def _finite(stored: np.ndarray, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(stored).all() and np.isfinite(values).all():
        raise CaptureError(
            f"a weight of {float(np.abs(values).max()):g} is too large for half floats", "use --weights f32"
        )
    return stored
