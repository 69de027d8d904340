"""The kernel table: calls, shapes, shares and order."""

from __future__ import annotations

import math

import pytest
from tvm import te, topi

from wgtune.support.errors import UsageError
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.capture.kernel_table import kernel_rows
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Kernel, Operand, Stage


def matmul(rows: int, name: str = "fused_matmul3_add12") -> Kernel:
    a, b = te.placeholder((rows, 8), name="a"), te.placeholder((8, 16), name="b")
    return make_kernel(name, te.create_prim_func([a, b, topi.nn.relu(topi.nn.matmul(a, b))]))


def stage(name: str, *kernels: Kernel) -> Stage:
    calls = [
        Call(kernel.id, tuple(Operand("temp", i, 0, spec.nbytes) for i, spec in enumerate(kernel.params)))
        for kernel in kernels
    ]
    return Stage(name, [], [], [], [], [], calls)


@pytest.fixture
def capture() -> Capture:
    small, large = matmul(4), matmul(32)
    stages = {"clip": stage("clip", small), "unet": stage("unet", small, large, large), "vae": stage("vae", large)}
    kernels = {kernel.id: kernel for kernel in (small, large)}
    return Capture("key", "tiny", CaptureOptions(), stages, kernels)


def test_a_kernel_in_two_stages_has_a_row_in_each(capture: Capture) -> None:
    rows = kernel_rows(capture, steps=10)
    calls = {(row.stage, row.shapes.split("×")[0]): row.calls for row in rows}
    # Two prompts with guidance, ten steps, one decoding.
    assert calls == {("clip", "4"): 2, ("unet", "4"): 10, ("unet", "32"): 20, ("vae", "32"): 1}
    assert math.isclose(sum(row.share for row in rows), 1.0)
    small, large = sorted(kernel.flops for kernel in capture.kernels.values())
    assert math.isclose(sum(row.gflop * row.calls for row in rows) * 1e9, 12 * small + 21 * large)
    for row in rows:
        assert math.isclose(row.intensity, row.gflop * 1e9 / (row.mib * 2**20))


@pytest.mark.parametrize("column", ["name", "id", "stage", "calls", "shapes", "gflop", "mib", "intensity", "share"])
def test_rows_sort_by_every_column(capture: Capture, column: str) -> None:
    values = [getattr(row, column) for row in kernel_rows(capture, steps=10, sort=column)]
    assert values == sorted(values, reverse=not isinstance(values[0], str))


def test_an_unknown_column_names_the_known_ones(capture: Capture) -> None:
    with pytest.raises(UsageError, match="speed") as error:
        kernel_rows(capture, steps=10, sort="speed")
    assert "share" in error.value.hint


def test_shapes_read_inputs_before_outputs_and_name_other_dtypes() -> None:
    table, ids = te.placeholder((9, 4), name="table"), te.placeholder((3,), "int32", name="ids")
    kernel = make_kernel("take", te.create_prim_func([table, ids, topi.take(table, ids, axis=0, mode="clip")]))
    empty = Capture("key", "tiny", CaptureOptions(), {"clip": stage("clip", kernel)}, {kernel.id: kernel})
    assert kernel_rows(empty, steps=1)[0].shapes == "9×4, 3:int32 -> 3×4"
