import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wgtune.devices.measure.verify import compare

FLOATS = arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32))


@given(FLOATS, st.floats(0, 1), st.floats(0, 1))
def test_what_is_equal_passes_at_any_tolerance(values: np.ndarray, rtol: float, atol: float) -> None:
    comparison = compare("y", values.copy(), values, rtol, atol)
    assert (comparison.wrong, comparison.max_error, comparison.message) == (0, 0.0, "")


@given(FLOATS, st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_element_that_is_no_number_never_passes(values: np.ndarray, data: st.DataObject, bad: float) -> None:
    index = data.draw(st.integers(0, values.size - 1))
    got = values.copy()
    got[index] = bad
    comparison = compare("y", got, values, rtol=1e30, atol=1e30)
    assert comparison.wrong == 1 and f"[{index}]" in comparison.message
    assert math.isnan(comparison.max_error) == math.isnan(bad)


@given(FLOATS, st.floats(0.015625, 10))
def test_the_bound_is_absolute_plus_relative(values: np.ndarray, atol: float) -> None:
    rtol = 0.125
    bound = atol + rtol * np.abs(values.astype(np.float64))
    inside = (values + 0.9 * bound).astype(np.float64)
    outside = (values + 1.1 * bound).astype(np.float64)
    assert compare("y", inside, values.astype(np.float64), rtol, atol).wrong == 0
    assert compare("y", outside, values.astype(np.float64), rtol, atol).wrong == values.size


def test_infinities_and_nans_that_are_expected() -> None:
    expected = np.array([-np.inf, np.inf, 1.0, np.nan], np.float32)
    assert compare("y", np.array([-np.inf, np.inf, 1.0, 0.0], np.float32), expected, 0.1, 0.1).wrong == 1
    assert compare("y", np.array([1e30, -np.inf, 1.0, np.nan], np.float32), expected, 0.1, 0.1).wrong == 3


def test_the_message_gives_place_values_and_counts() -> None:
    expected = np.zeros((3, 4, 5), np.float32)
    got = expected.copy()
    got[1, 2, 3], got[2, 0, 0] = 0.5, -2.5
    comparison = compare("parameter 2", got, expected, 0, 1e-3)
    assert comparison.wrong == 2 and comparison.max_error == 2.5
    assert comparison.message == (
        "2 of 60 elements of parameter 2 are wrong; the first is [1, 2, 3]: 0.5 instead of 0.0; "
        "the largest error is 2.5"
    )
    got[0, 0, 0] = np.nan
    assert "1 are NaN" in compare("parameter 2", got, expected, 0, 1e-3).message


def test_arrays_of_many_blocks() -> None:
    expected = np.ones((1 << 20) + 7, np.float32)
    got = expected.copy()
    got[-1] = 3
    comparison = compare("y", got, expected, 0, 0.1)
    assert comparison.wrong == 1 and comparison.max_error == 2 and f"[{expected.size - 1}]" in comparison.message


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float16])
def test_other_dtypes(dtype: type) -> None:
    expected = np.arange(10).astype(dtype)
    assert compare("y", expected.copy(), expected, 0, 0).wrong == 0
    poisoned = np.full(10 * expected.itemsize, 0xFF, np.uint8).view(dtype)
    assert compare("y", poisoned, expected, 0.01, 0.5).wrong == 10


def test_an_empty_output_is_right() -> None:
    assert compare("y", np.zeros((0, 4)), np.zeros((0, 4)), 0, 0).wrong == 0
