"""A kernel's work and its readable name."""

from __future__ import annotations

import pytest
from tvm import te, topi

from wgtune.tuner.capture.kernel import make_kernel, readable_name
from wgtune.tuner.ir import Kernel


def matmul(rows: int, name: str = "fused_matmul3_add12") -> Kernel:
    a, b = te.placeholder((rows, 8), name="a"), te.placeholder((8, 16), name="b")
    return make_kernel(name, te.create_prim_func([a, b, topi.nn.relu(topi.nn.matmul(a, b))]))


def test_a_kernel_knows_its_work() -> None:
    kernel = matmul(4)
    assert kernel.func.attrs["global_symbol"] == "main"
    assert [spec.shape for spec in kernel.params] == [(4, 8), (8, 16), (4, 16)]
    assert kernel.outputs == (2,)
    assert kernel.nbytes == 4 * (4 * 8 + 8 * 16 + 4 * 16)
    # A multiplication and an addition for each element of the contraction, one maximum for each of the result.
    assert kernel.flops == 2 * 4 * 16 * 8 + 4 * 16
    assert kernel.name == f"matmul_add_{kernel.id[:8]}"


@pytest.mark.parametrize(
    "name, readable",
    [
        ("fused_conv2d12_add5_silu3", "conv2d_add_silu"),
        ("fused_conv2d_add_expand_dims_expand_dims1_add4", "conv2d_add"),
        ("fused_matmul_add1_multiply_tir_sigmoid_multiply", "matmul_add_multiply_sigmoid_multiply"),
        ("reshape7", "reshape"),
        ("layer_norm", "layer_norm"),
        ("fused_transpose2_reshape9", "transpose"),
    ],
)
def test_names_are_the_operators_without_their_numbers(name: str, readable: str) -> None:
    assert readable_name(name, "0123456789abcdef") == f"{readable}_01234567"


def test_a_long_fusion_is_named_by_its_beginning() -> None:
    name = readable_name("fused_" + "_".join(["multiply", "subtract"] * 20), "0123456789abcdef")
    assert name.startswith("multiply_subtract_")
    assert len(name) < 60
