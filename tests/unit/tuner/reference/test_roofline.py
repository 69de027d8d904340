"""What is too fast to be believed."""

from __future__ import annotations

import pytest
from tvm import te

from wgtune.devices.measure.job import Peaks
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.reference.roofline import BYTES_MARGIN, FLOPS_MARGIN, floor_seconds


def matmul(n: int):
    a, b = te.placeholder((n, n), name="a"), te.placeholder((n, n), name="b")
    k = te.reduce_axis((0, n), name="k")
    return te.create_prim_func([a, b, te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k))])


def gather(rows: int, taken: int):
    table = te.placeholder((rows, 64), name="table")
    ids = te.placeholder((taken,), name="ids", dtype="int32")
    return te.create_prim_func([table, ids, te.compute((taken, 64), lambda i, j: table[ids[i], j])])


def test_arithmetic_bounds_a_matmul() -> None:
    kernel = make_kernel("matmul", matmul(256))
    peaks = Peaks(flops_per_s=1e12, bytes_per_s=1e12)
    assert floor_seconds(kernel, peaks) == pytest.approx(2 * 256**3 / 1e12 / FLOPS_MARGIN)


def test_a_gather_is_bounded_by_what_it_writes_not_by_its_table() -> None:
    peaks = Peaks(flops_per_s=1e12, bytes_per_s=1e10)
    small, large = (make_kernel("take", gather(rows, 77)) for rows in (100, 100_000))
    assert floor_seconds(small, peaks) == floor_seconds(large, peaks)
    assert floor_seconds(large, peaks) == pytest.approx(77 * 64 * 4 / 1e10 / BYTES_MARGIN)
