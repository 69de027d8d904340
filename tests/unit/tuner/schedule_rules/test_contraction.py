"""Which loops of a product or convolution belong to which side, and what is no contraction."""

from __future__ import annotations

from tuning_kernels import conv2d, matmul, softmax, transpose
from tvm import te
from tvm.s_tir import Schedule

from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules.contraction import Contraction, find_contraction


def found(kernel: Kernel) -> Contraction | None:
    return find_contraction(Schedule(schedulable_module(kernel)))


def sizes(contraction: Contraction) -> dict[str, tuple[int, ...]]:
    parts = {name: getattr(contraction, name) for name in ("batch", "rows", "columns", "terms", "units")}
    return {name: tuple(contraction.extents[axis] for axis in axes) for name, axes in parts.items()}


def test_a_matrix_product() -> None:
    product = found(matmul(64, 96, 48))
    assert product is not None and product.plain
    assert sizes(product) == {"batch": (), "rows": (64,), "columns": (96,), "terms": (48,), "units": ()}
    assert (product.rows_operand.read, product.columns_operand.read) == (0, 1)


def test_a_convolutions_columns_are_its_pixels() -> None:
    product = found(conv2d())
    assert product is not None and not product.plain
    assert sizes(product) == {
        "batch": (),
        "rows": (32,),
        "columns": (2, 16, 16),
        "terms": (16, 3, 3),
        "units": (),
    }


def test_heads_are_a_batch_and_one_image_is_a_unit() -> None:
    q, k = te.placeholder((1, 8, 4, 16)), te.placeholder((1, 12, 4, 16))
    term = te.reduce_axis((0, 16))
    total = te.compute((1, 4, 8, 12), lambda b, h, i, j: te.sum(q[b, i, h, term] * k[b, j, h, term], term))
    product = found(make_kernel("scores", te.create_prim_func([q, k, total])))
    assert product is not None and product.plain
    assert sizes(product) == {"batch": (4,), "rows": (8,), "columns": (12,), "terms": (16,), "units": (1,)}


def test_other_kernels_are_no_contractions() -> None:
    assert found(softmax()) is None and found(transpose()) is None
    x = te.placeholder((8, 16))
    k = te.reduce_axis((0, 16))
    square = te.compute((8,), lambda i: te.sum(x[i, k] * x[i, k], k))
    assert found(make_kernel("square", te.create_prim_func([x, square]))) is None
