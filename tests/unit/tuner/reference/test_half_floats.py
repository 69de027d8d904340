"""Cases of kernels that store half floats: inputs as large as activations, and sums of halves that do not pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tvm import te, topi

from wgtune.devices.measure.verify import compare
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.ir import Kernel
from wgtune.tuner.reference.cpu_reference import run_on_cpu
from wgtune.tuner.reference.reference import make_case

ROWS, LENGTH = 8, 768


def row_kernel(compute: Any) -> Kernel:
    """A kernel over rows of half floats."""
    x = te.placeholder((ROWS, LENGTH), "float16", "x")
    return make_kernel("kernel", te.create_prim_func([x, compute(x)]))


def norm(summed: str, squared: str) -> Kernel:
    """A layer norm that adds in one type and squares in another, and computes all else in float32."""

    def compute(x: te.Tensor) -> te.Tensor:
        first, second = te.reduce_axis((0, LENGTH)), te.reduce_axis((0, LENGTH))
        total = te.compute((ROWS,), lambda i: te.sum(x[i, first].astype(summed), first))

        def away(i: Any, j: Any) -> Any:
            return x[i, j].astype("float32") - total[i].astype("float32") / LENGTH

        def square(i: Any, j: Any) -> Any:
            one = away(i, j).astype(squared)
            return (one * one).astype("float32")

        squares = te.compute((ROWS,), lambda i: te.sum(square(i, second), second))
        return te.compute(
            x.shape, lambda i, j: (away(i, j) * te.rsqrt(squares[i] / LENGTH + 1e-5)).astype("float16"), name="halve"
        )

    return row_kernel(compute)


def product(summed: str) -> Kernel:
    x, w = te.placeholder((ROWS, LENGTH), "float16"), te.placeholder((LENGTH, 64), "float32")
    term = te.reduce_axis((0, LENGTH))
    total = te.compute(
        (ROWS, 64), lambda i, j: te.sum((x[i, term].astype("float32") * w[term, j]).astype(summed), term)
    )
    return make_kernel(
        "kernel", te.create_prim_func([x, w, te.compute(total.shape, lambda *i: total(*i).astype("float16"))])
    )


def soft(summed: str) -> Kernel:
    def compute(x: te.Tensor) -> te.Tensor:
        first, second = te.reduce_axis((0, LENGTH)), te.reduce_axis((0, LENGTH))
        most = te.compute((ROWS,), lambda i: te.max(x[i, first].astype("float32"), first))
        powers = te.compute(x.shape, lambda i, j: te.exp(x[i, j].astype("float32") - most[i]))
        total = te.compute((ROWS,), lambda i: te.sum(powers[i, second].astype(summed), second))
        return te.compute(x.shape, lambda i, j: (1024.0 * powers[i, j] / total[i].astype("float32")).astype("float16"))

    return row_kernel(compute)


def result_of(run: Kernel, right: Kernel, folder: Path) -> tuple[np.ndarray, int]:
    """What ``run`` makes of the inputs of ``right``'s case, and how many of its results do not pass."""
    case = make_case(right, 0, folder)
    data = load_file(case.path)
    last = right.outputs[0]
    got = np.empty_like(data[f"expected{last}"])
    run_on_cpu(run.func, [*(data[f"arg{i}"] for i in range(last)), got])
    return got, compare("result", got, data[f"expected{last}"], case.rtol, case.atol).wrong


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (norm("float32", "float32"), norm("float16", "float32")),
        (norm("float32", "float32"), norm("float32", "float16")),
        (product("float32"), product("float16")),
        (soft("float32"), soft("float16")),
    ],
    ids=["mean in halves", "squares in halves", "product in halves", "softmax in halves"],
)
def test_sums_of_halves_are_caught_and_those_of_float32_pass(right: Kernel, wrong: Kernel, tmp_path: Path) -> None:
    assert result_of(right, right, tmp_path)[1] == 0
    assert result_of(wrong, right, tmp_path)[1] > 0


def test_activations_have_large_means_and_deviations(tmp_path: Path) -> None:
    x = load_file(make_case(norm("float32", "float32"), 0, tmp_path).path)["arg0"].astype(np.float64)
    assert x.dtype == np.float64 and 250 < x.mean() < 350 and 750 < x.std() < 850
    data = load_file(make_case(product("float32"), 0, tmp_path).path)
    assert 5000 < data["expected2"].astype(np.float64).std() < 12_000
    assert 0.9 < data["arg1"].std() < 1.1, "weights are not activations"
    exponentials = load_file(make_case(soft("float32"), 0, tmp_path).path)["arg0"]
    assert 0.9 < exponentials.astype(np.float64).std() < 1.1, "one large input would be all of a softmax"


def test_one_rounding_of_a_result_is_allowed_and_two_are_not(tmp_path: Path) -> None:
    right = row_kernel(lambda x: te.compute(x.shape, lambda *i: (x(*i).astype("float32") * 3.0).astype("float16")))
    case = make_case(right, 0, tmp_path)
    expected = load_file(case.path)["expected1"]
    assert expected.astype(np.float64).std() > 2000
    for steps, passes in ((1, True), (-1, True), (3, False), (-3, False)):
        moved = (expected.view(np.int16) + np.int16(steps)).view(np.float16)
        wrong = compare("result", moved, expected, case.rtol, case.atol).wrong
        assert (wrong == 0) is passes, steps


def test_a_copy_of_halves_is_exact(tmp_path: Path) -> None:
    case = make_case(row_kernel(lambda x: topi.transpose(x)), 0, tmp_path)
    assert (case.rtol, case.atol) == (0.0, 0.0)


def test_results_beyond_half_floats_are_tried_with_smaller_inputs(tmp_path: Path) -> None:
    def squared(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *i: (x(*i).astype("float32") * x(*i).astype("float32")).astype("float16"))

    data = load_file(make_case(row_kernel(squared), 0, tmp_path).path)
    assert np.isfinite(data["expected1"]).all() and 0.9 < data["arg0"].astype(np.float64).std() < 1.1
