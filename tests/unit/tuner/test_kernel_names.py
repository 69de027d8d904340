"""The class of a kernel by its name, and the patterns that choose kernels."""

from __future__ import annotations

import pytest

from wgtune.tuner.kernel_names import KernelClass, kernel_class, names_kernel


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("matmul_add_silu_1a2b3c4d", KernelClass.PRODUCT),
        ("conv2d_add_1a2b3c4d", KernelClass.CONVOLUTION),
        ("attention_scores_multiply_1a2b3c4d", KernelClass.ATTENTION),
        ("softmax_1a2b3c4d", KernelClass.REDUCTION),
        ("group_norm_silu_1a2b3c4d", KernelClass.REDUCTION),
        ("layer_norm_1a2b3c4d", KernelClass.REDUCTION),
        ("transpose_add_1a2b3c4d", KernelClass.TRANSPOSE),
        ("upsample_1a2b3c4d", KernelClass.ELEMENTWISE),
        ("convert_1a2b3c4d", KernelClass.ELEMENTWISE),
        ("tvm_1a2b3c4d", KernelClass.ELEMENTWISE),
        ("fused_conv2d12_add_relu", KernelClass.CONVOLUTION),
        ("fused_transpose3_matmul4_softmax", KernelClass.PRODUCT),
        ("", KernelClass.ELEMENTWISE),
    ],
)
def test_the_costliest_operator_in_a_name_decides_its_class(name: str, expected: KernelClass) -> None:
    assert kernel_class(name) is expected


def test_products_convolutions_and_attention_multiply() -> None:
    assert [one.value for one in KernelClass if one.multiplies] == ["products", "convolutions", "attention"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("conv2d_add_1a2b3c4d", True),
        ("conv2d*", True),
        ("conv2d", False),
        ("1A2B3C", True),
        ("1a2b3", False),
        ("*_add_*", True),
        ("", False),
    ],
)
def test_a_pattern_is_a_name_a_glob_or_the_first_digits_of_an_id(pattern: str, expected: bool) -> None:
    assert names_kernel(pattern, "conv2d_add_1a2b3c4d", "1a2b3c4d5e6f") is expected
