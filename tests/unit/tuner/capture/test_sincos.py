"""Sine and cosine by integers: as good as float32 allows where the built-in ones of GPUs are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

from wgtune.tuner.capture.sincos import cos, sin

LENGTH = 256


def compiled(function: Callable[[te.Tensor], te.Tensor]) -> tvm.runtime.Executable:
    x = te.placeholder((LENGTH,))
    return tvm.compile(te.create_prim_func([x, function(x)]), target="llvm")


SINE, COSINE = compiled(sin), compiled(cos)


def run(program: tvm.runtime.Executable, values: np.ndarray) -> np.ndarray:
    x = np.zeros(LENGTH, np.float32)
    x[: len(values)] = values
    result = tvm.runtime.tensor(np.full(LENGTH, np.nan, np.float32))
    program(tvm.runtime.tensor(x), result)
    return result.numpy()[: len(values)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=LENGTH))
def test_close_to_the_truth_everywhere(values: list[float]) -> None:
    x = np.array(values, np.float32)
    allowed = np.where(np.abs(x) <= 1000, 3e-7, 1e-6)
    assert np.all(np.abs(run(SINE, x) - np.sin(x.astype(np.float64))) <= allowed)
    assert np.all(np.abs(run(COSINE, x) - np.cos(x.astype(np.float64))) <= allowed)


@pytest.mark.parametrize("scale", [1e-6, 1.0, np.pi / 4, np.pi / 2, np.pi, 999.0])
def test_quarters_and_signs(scale: float) -> None:
    x = (np.arange(-100, 101) * scale).astype(np.float32)
    assert np.abs(run(SINE, x) - np.sin(x.astype(np.float64))).max() < (3e-7 if scale < 10 else 1e-6)
    assert np.abs(run(COSINE, x) - np.cos(x.astype(np.float64))).max() < (3e-7 if scale < 10 else 1e-6)
    assert np.array_equal(run(SINE, -x), -run(SINE, x)) and np.array_equal(run(COSINE, -x), run(COSINE, x))


def test_no_number_leaves_the_circle() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 3e9], np.float32)
    for program in (SINE, COSINE):
        assert np.all(np.abs(run(program, x)) <= 1 + 1e-5)
