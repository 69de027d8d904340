"""One kernel of a captured model: its identity, a readable name, and the work of one launch."""

from __future__ import annotations

import hashlib
import re

import tvm
from tvm.s_tir.analysis import estimate_tir_flops
from tvm.tirx import PrimFunc

from ...database.tvm.kernel_identity import canonical_text, with_canonical_names
from ..ir import Kernel, TensorSpec

_NAME_LENGTH = 32
"""Characters after which a name takes no further operator."""


def make_kernel(name: str, func: PrimFunc, outputs: int = 1) -> Kernel:
    """Return the kernel of a fused function.

    Args:
        name: the function's name in TVM, from which the readable name is made.
        func: the function, unscheduled.
        outputs: how many parameters, the last ones, are written.
    """
    func = with_canonical_names(func)
    text = canonical_text(func)
    identity = hashlib.sha256(text.encode()).hexdigest()
    params = tuple(
        TensorSpec(param.name, tuple(int(extent) for extent in param.ty.shape), str(param.ty.dtype))
        for param in func.params
    )
    return Kernel(
        id=identity,
        name=readable_name(name, identity),
        text=text,
        func=func,
        params=params,
        outputs=tuple(range(len(params) - outputs, len(params))),
        flops=float(estimate_tir_flops(tvm.IRModule({"main": func}))),
        nbytes=sum(spec.nbytes for spec in params),
    )


def readable_name(name: str, identity: str) -> str:
    """Return TVM's function name without counters, followed by the id's first hex digits: ``conv2d_add_silu_1f3a9c2e``.

    TVM's counters (``conv2d12``) follow the order of operators in the model. Operators that only rename axes are left
    out beside others, repetitions of an operator are named once, and a long fusion is named by its beginning.
    """
    operators = re.sub(r"(?<![^_])(tir|fused)_", "", name)
    computing = re.sub(r"(?<![^_])(expand_dims|broadcast_to|reshape|squeeze|cast)\d*(?![^_])", "", operators)
    words: list[str] = []
    for word in (computing if computing.strip("_") else operators).split("_"):
        stem = re.sub(r"\d+$", "", word)
        if stem and (not words or words[-1] != stem) and len("_".join(words)) < _NAME_LENGTH:
            words.append(stem)
    return "_".join([*words, identity[:8]])
