"""Formats of weights: what is stored takes the bits that it should, and kernels decode what was encoded."""

from __future__ import annotations

import numpy as np
import pytest
from weight_decoder import GROUP, decode

from wgtune.support.enums import WeightPrecision
from wgtune.support.errors import CaptureError
from wgtune.tuner.capture.weights.formats import decoder, encode, stored_specs
from wgtune.tuner.ir import WeightFormat
from wgtune.tuner.reference.cpu_reference import run_on_cpu

F32, F16, Q8, Q4 = WeightPrecision
FORMATS = [
    WeightFormat((13, 7), F16),
    WeightFormat((64, 24), Q8, (0, 1)),
    WeightFormat((5, 32, 3, 3), Q8, (1, 4)),
    WeightFormat((64, 24), Q4, (0, 1)),
    WeightFormat((5, 32, 3, 3), Q4, (1, 4)),
    WeightFormat((2, 32, 3, 8), Q4, (1, 2)),
]
WORST = {F16: 2.0**-11, Q8: 1 / 128, Q4: 0.5 / 7.6}
"""Largest error, relative to the largest weight of a group; of 8 bits that of a weight as large, of the other sign."""


def values_of(weight: WeightFormat, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(0).standard_normal(weight.shape)).astype(np.float32)


@pytest.mark.parametrize("weight", FORMATS, ids=str)
def test_a_kernel_decodes_what_was_encoded(weight: WeightFormat) -> None:
    values = values_of(weight)
    stored = encode(weight, values)
    assert [(array.shape, str(array.dtype)) for array in stored] == [
        (spec.shape, spec.dtype) for spec in stored_specs("w", weight)
    ]
    decoded = np.empty(weight.shape, np.float32)
    run_on_cpu(decoder(weight), [*stored, decoded])
    np.testing.assert_array_equal(decoded, decode(weight, stored))


@pytest.mark.parametrize("scale", [1.0, 1e-4, 30.0])
@pytest.mark.parametrize("weight", FORMATS, ids=str)
def test_errors_are_those_of_the_format(weight: WeightFormat, scale: float) -> None:
    values = values_of(weight, scale)
    error = np.abs(decode(weight, encode(weight, values)) - values)
    if weight.precision is F16:
        assert (error <= WORST[F16] * np.abs(values) + 2.0**-25).all()
        return
    outer, terms, inner = weight.extents
    groups = np.abs(values).reshape(outer, terms // GROUP, GROUP, inner)
    most = np.broadcast_to(groups.max(axis=2, keepdims=True), groups.shape).reshape(values.shape)
    # Scales are rounded to half floats. With 4 bits a few weights are cut off at 7 of 9 steps.
    assert (error <= (WORST[weight.precision] + 2.0**-10) * most).mean() >= (0.97 if weight.precision is Q4 else 1)
    assert (error <= (1 - 7 / 9 + 2.0**-10) * most).all()


def test_trying_several_scales_of_4_bits_makes_the_sum_of_errors_smaller() -> None:
    weight = WeightFormat((4096, 8), Q4, (0, 1))
    values = values_of(weight)
    error = decode(weight, encode(weight, values)) - values
    groups = values.reshape(-1, GROUP, 8)
    step = np.abs(groups).max(axis=1, keepdims=True) / 7
    plain = np.rint(groups / step) * step - groups
    assert np.square(error).mean() < 0.75 * np.square(plain).mean()


@pytest.mark.parametrize("precision", [Q8, Q4])
def test_groups_of_zeros_and_of_tiny_weights(precision: WeightPrecision) -> None:
    """The stored scales are normal half floats: GPUs may take subnormal ones for zero."""
    weight = WeightFormat((2 * GROUP, 1), precision, (0, 1))
    values = np.concatenate([np.zeros(GROUP), np.linspace(-1e-3, 1e-3, GROUP)]).astype(np.float32)[:, None]
    words, scales = encode(weight, values)
    assert scales[0] == 0 and abs(scales[1]) > np.finfo(np.float16).tiny
    np.testing.assert_allclose(decode(weight, [words, scales]), values, atol=1e-3 * WORST[precision] * 1.5)


@pytest.mark.parametrize("weight", [FORMATS[0], FORMATS[1], FORMATS[3]], ids=str)
def test_weights_that_are_too_large_are_told(weight: WeightFormat) -> None:
    values = values_of(weight)
    values[0, 0] = 1e5
    with pytest.raises(CaptureError, match=r"a weight of 100000 is too large for half floats"):
        encode(weight, values)
