"""What a kernel's name tells: the class of its work, and whether a pattern of `--kernels` means it.

A name is the fused operators in their order, then the first digits of the kernel's id: ``conv2d_add_silu_1f3a9c2e``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from fnmatch import fnmatchcase

from ..support.errors import UsageError

_MIN_ID_DIGITS = 6
"""Hex digits from which a word may be the beginning of a kernel's id."""


class KernelClass(str, Enum):
    """What bounds a kernel, and which schedules suit it, by its costliest operator."""

    PRODUCT = "products"
    CONVOLUTION = "convolutions"
    ATTENTION = "attention"
    """The scores, the values, or both at once; the softmax between them is a reduction."""
    REDUCTION = "norms and softmax"
    TRANSPOSE = "transposes"
    ELEMENTWISE = "element-wise and others"
    """What only moves data is among them, and what has no telling name."""

    @property
    def multiplies(self) -> bool:
        """Whether multiply-adds do its work."""
        return self in (KernelClass.PRODUCT, KernelClass.CONVOLUTION, KernelClass.ATTENTION)


_WORDS = {
    "attention": KernelClass.ATTENTION,
    "conv": KernelClass.CONVOLUTION,
    "conv1d": KernelClass.CONVOLUTION,
    "conv2d": KernelClass.CONVOLUTION,
    "conv3d": KernelClass.CONVOLUTION,
    "matmul": KernelClass.PRODUCT,
    "dense": KernelClass.PRODUCT,
    "bmm": KernelClass.PRODUCT,
    "einsum": KernelClass.PRODUCT,
    "norm": KernelClass.REDUCTION,
    "softmax": KernelClass.REDUCTION,
    "transpose": KernelClass.TRANSPOSE,
}
"""The class by a word of the name. The costliest comes first: it decides where a name has several."""


def kernel_class(name: str) -> KernelClass:
    """Return the class of the kernel called ``name``; TVM's counters (``conv2d12``) do not matter."""
    words = {re.sub(r"(?<=[a-z])\d+$", "", re.sub(r"(?<=\dd)\d+$", "", word)) for word in name.split("_")}
    return next((found for word, found in _WORDS.items() if word in words), KernelClass.ELEMENTWISE)


def chosen_kernels(patterns: Sequence[str], names: Mapping[str, str], model: str, hint: str) -> dict[str, str]:
    """Return those of ``names``, a model's kernels by id, that one of the patterns of `--kernels` means; all of none.

    Raises UsageError with ``hint`` where a pattern means no kernel.
    """
    for pattern in patterns:
        if not any(names_kernel(pattern, name, key) for key, name in names.items()):
            raise UsageError(f"no kernel of {model} is called {pattern!r}", hint)
    return {
        key: name
        for key, name in names.items()
        if not patterns or any(names_kernel(pattern, name, key) for pattern in patterns)
    }


def names_kernel(pattern: str, name: str, kernel_id: str) -> bool:
    """Return whether ``pattern`` is the kernel's name, a glob of it, or the first digits of its id (six or more)."""
    if name == pattern or fnmatchcase(name, pattern):
        return True
    return len(pattern) >= _MIN_ID_DIGITS and kernel_id.startswith(pattern.lower())
