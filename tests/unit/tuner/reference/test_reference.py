"""Cases: inputs, double-precision outputs, tolerances, and the files they are kept in."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import HELPERS
from safetensors.numpy import load_file
from tuning_kernels import conv2d, matmul, softmax
from tvm import te, tirx, topi

from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.ir import Kernel
from wgtune.tuner.reference.reference import Case, NonFiniteReferenceError, make_case


def unary(operator, shape: tuple[int, ...] = (64, 64), dtype: str = "float32") -> Kernel:
    x = te.placeholder(shape, dtype)
    return make_kernel("unary", te.create_prim_func([x, operator(x)]))


def passes(case: Case, got: np.ndarray, index: int) -> bool:
    expected = load_file(case.path)[f"expected{index}"].astype(np.float64)
    return bool(np.all(np.abs(got - expected) <= case.atol + case.rtol * np.abs(expected)))


def test_matmul_is_numpys_in_double_precision(tmp_path: Path) -> None:
    kernel = matmul(77, 96, 64)
    case = make_case(kernel, 3, tmp_path)
    data = load_file(case.path)
    a, b, c = (data[f"arg{i}"].astype(np.float64) for i in range(3))
    np.testing.assert_allclose(data["expected3"], a @ b + c, rtol=1e-7, atol=1e-6)
    assert set(data) == {"arg0", "arg1", "arg2", "expected3"}
    assert case.reduction_length == 64


def test_convolution_is_pytorchs(tmp_path: Path) -> None:
    import torch

    data = load_file(make_case(conv2d(), 0, tmp_path).path)
    x, w, b = (torch.from_numpy(data[f"arg{i}"]).double() for i in range(3))
    expected = torch.relu(torch.nn.functional.conv2d(x, w, padding=1) + b).numpy()
    np.testing.assert_allclose(data["expected3"], expected, rtol=1e-7, atol=1e-6)


def test_softmax_is_pytorchs(tmp_path: Path) -> None:
    import torch

    data = load_file(make_case(softmax(), 0, tmp_path).path)
    np.testing.assert_allclose(data["expected1"], torch.softmax(torch.from_numpy(data["arg0"]).double(), -1), rtol=1e-6)


def test_the_seed_decides_the_inputs(tmp_path: Path) -> None:
    kernel = matmul()
    one, other = make_case(kernel, 0, tmp_path), make_case(kernel, 1, tmp_path)
    assert one.path != other.path
    again = make_case(kernel, 0, tmp_path / "elsewhere")
    np.testing.assert_array_equal(load_file(one.path)["arg0"], load_file(again.path)["arg0"])
    assert not np.array_equal(load_file(one.path)["arg0"], load_file(other.path)["arg0"])
    assert not np.array_equal(load_file(one.path)["arg0"].ravel()[:96], load_file(one.path)["arg2"])


def test_a_case_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = matmul()
    first = make_case(kernel, 0, tmp_path)
    monkeypatch.setattr("wgtune.tuner.reference.reference.run_on_cpu", lambda *_: pytest.fail("computed again"))
    assert make_case(kernel, 0, tmp_path) == first
    assert [p.name for p in tmp_path.iterdir()] == [first.path.name]


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "other kernel"])
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage: str) -> None:
    kernel = matmul()
    case = make_case(kernel, 0, tmp_path)
    whole = case.path.read_bytes()
    other = make_case(softmax(), 0, tmp_path / "other").path.read_bytes()
    case.path.write_bytes({"cut": whole[:-100], "empty": b"", "garbage": b"x" * 4096, "other kernel": other}[damage])
    assert make_case(kernel, 0, tmp_path) == case
    assert case.path.read_bytes() == whole


def test_indices_stay_inside_the_axes_that_they_index(tmp_path: Path) -> None:
    table, ids = te.placeholder((10, 64)), te.placeholder((500,), "int32")
    kernel = make_kernel("take", te.create_prim_func([table, ids, topi.take(table, ids, axis=0)]))
    data = load_file(make_case(kernel, 0, tmp_path).path)
    assert data["arg1"].min() == 0 and data["arg1"].max() == 9
    np.testing.assert_array_equal(data["expected2"], data["arg0"][data["arg1"]])


def test_indices_reach_every_part_of_a_table_in_parts(tmp_path: Path) -> None:
    ids, low, high = te.placeholder((500,), "int32"), te.placeholder((10, 4)), te.placeholder((6, 4))

    def row(i, j):
        inside = [tirx.max(tirx.min(ids[i] - start, rows - 1), 0) for start, rows in ((0, 10), (10, 6))]
        return tirx.if_then_else(ids[i] < 10, low[inside[0], j], high[inside[1], j])

    kernel = make_kernel("take", te.create_prim_func([ids, low, high, te.compute((500, 4), row)]))
    data = load_file(make_case(kernel, 0, tmp_path).path)
    assert data["arg0"].min() == 0 and data["arg0"].max() == 15
    np.testing.assert_array_equal(data["expected3"], np.concatenate([data["arg1"], data["arg2"]])[data["arg0"]])


def test_integers_that_index_nothing_are_moved_exactly(tmp_path: Path) -> None:
    kernel = unary(lambda x: te.compute(x.shape, lambda i, j: x[i, j] + 1), dtype="int32")
    case = make_case(kernel, 0, tmp_path)
    data = load_file(case.path)
    assert (case.rtol, case.atol) == (0.0, 0.0)
    np.testing.assert_array_equal(data["expected1"], data["arg0"] + 1)


def test_numbers_without_axes_are_inputs_and_outputs(tmp_path: Path) -> None:
    number, scale = te.placeholder((), name="number"), te.placeholder((), name="scale")
    product = te.compute((), lambda *_: number() * scale(), name="product")
    kernel = make_kernel("kernel", te.create_prim_func([number, scale, product]))
    arrays = load_file(make_case(kernel, 0, tmp_path).path)
    assert arrays["arg0"].size == arrays["expected2"].size == 1
    assert arrays["expected2"] == pytest.approx(arrays["arg0"] * arrays["arg1"])


@pytest.mark.parametrize("operator", [topi.sqrt, topi.log, topi.rsqrt], ids=["sqrt", "log", "rsqrt"])
def test_where_normal_inputs_have_no_result_positive_ones_do(tmp_path: Path, operator) -> None:
    data = load_file(make_case(unary(operator), 0, tmp_path).path)
    assert data["arg0"].min() >= 0.5
    assert np.isfinite(data["expected1"]).all()


def test_a_kernel_without_finite_results_is_refused(tmp_path: Path) -> None:
    kernel = unary(lambda x: topi.log(topi.negative(topi.abs(x))))
    with pytest.raises(NonFiniteReferenceError, match=kernel.name):
        make_case(kernel, 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_single_precision_in_any_order_passes(tmp_path: Path) -> None:
    kernel = matmul(64, 96, 3072)
    case = make_case(kernel, 0, tmp_path)
    a, b, c = (load_file(case.path)[f"arg{i}"] for i in range(3))
    forward = np.zeros((64, 96), np.float32)
    for k in range(3072):
        forward += a[:, k, None] * b[None, k]
    in_blocks = sum((a[:, k : k + 64] @ b[k : k + 64] for k in range(0, 3072, 64)), np.float32(0))
    for order in (forward, in_blocks):
        assert passes(case, order + c, 3)


def test_one_missing_term_of_thousands_fails(tmp_path: Path) -> None:
    kernel = matmul(64, 96, 3072)
    case = make_case(kernel, 0, tmp_path)
    data = load_file(case.path)
    got = data["expected3"].astype(np.float64)
    assert passes(case, got, 3)
    terms = data["arg0"][5] * data["arg1"][:, 7]
    got[5, 7] -= np.median(np.abs(terms))
    assert not passes(case, got, 3)


def test_a_swapped_tile_fails(tmp_path: Path) -> None:
    case = make_case(softmax(), 0, tmp_path)
    got = load_file(case.path)["expected1"].copy()
    got[0, :8, :8], got[0, 8:16, :8] = got[0, 8:16, :8].copy(), got[0, :8, :8].copy()
    assert not passes(case, got, 1)


def test_masks_do_not_widen_the_tolerance(tmp_path: Path) -> None:
    def masked(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda i, j: te.if_then_else(j > i, te.const(-1e9, "float32"), x[i, j]))

    assert make_case(unary(masked), 0, tmp_path).atol < 1e-5


def test_a_clamp_gets_the_tolerance_of_what_was_clamped(tmp_path: Path) -> None:
    x, w = te.placeholder((64, 4096)), te.placeholder((4096, 64))
    kernel = make_kernel("matmul_clip", te.create_prim_func([x, w, topi.clip(topi.matmul(x, w), 0.0, 0.01)]))
    case = make_case(kernel, 0, tmp_path)
    a, b = (load_file(case.path)[f"arg{i}"] for i in range(2))
    assert passes(case, np.clip(a @ b, np.float32(0), np.float32(0.01)), 2)
    assert case.atol < 0.005


def test_tolerance_grows_with_the_root_of_the_reduction(tmp_path: Path) -> None:
    short, long = (make_case(matmul(64, 64, k), 0, tmp_path) for k in (256, 4096))
    assert long.rtol == pytest.approx(4 * short.rtol)
    assert math.isclose(long.atol / short.atol, 16, rel_tol=0.3)  # four from √K, four from larger outputs


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    """A process that may write a hundred bytes per file sees what a full disk looks like."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(HELPERS)!r})
from pathlib import Path
from tuning_kernels import matmul
from wgtune.support.errors import WgtuneError
from wgtune.tuner.reference.reference import make_case
kernel, folder = matmul(), Path({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    make_case(kernel, 0, folder)
except WgtuneError as error:
    print(error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "cannot be kept" in done.stdout and "WGTUNE_CACHE" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == [], "half a file is left"
