"""The kernels of a captured model: what each one is, how often it runs, and its share of the model's work."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ...support.errors import UsageError
from ..ir import Capture, Kernel, TensorSpec

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc

_NAME_LENGTH = 32
MIB = 1 << 20


@dataclass(frozen=True)
class KernelRow:
    """One kernel as one stage uses it.

    ``calls`` is launches per batch of images, ``shapes`` the parameters in order with ``->`` before the outputs.
    ``gflop`` and ``mib`` are of one launch: 10⁹ floating-point operations, and 2²⁰ bytes of parameters, each counted
    once. ``intensity`` is FLOPs per byte, ``share`` the fraction of all FLOPs of the image that this row's calls make.
    """

    name: str
    id: str
    stage: str
    calls: int
    shapes: str
    gflop: float
    mib: float
    intensity: float
    share: float


def kernel_rows(capture: Capture, steps: int, sort: str = "share") -> list[KernelRow]:
    """A row per stage and kernel at ``steps`` model calls, sorted by the column ``sort``: numbers largest first.

    A kernel that two stages use has one row in each. Raises UsageError for an unknown column.
    """
    columns = [field.name for field in fields(KernelRow)]
    if sort not in columns:
        raise UsageError(f"there is no column {sort!r} to sort by", f"columns: {', '.join(columns)}")
    calls = capture.calls_per_image(steps)
    total = sum(count * capture.kernels[kernel].flops for (_, kernel), count in calls.items())
    rows = []
    for (stage, identity), count in calls.items():
        kernel = capture.kernels[identity]
        rows.append(
            KernelRow(
                name=kernel.name,
                id=identity,
                stage=stage,
                calls=count,
                shapes=format_shapes(kernel),
                gflop=kernel.flops / 1e9,
                mib=kernel.nbytes / MIB,
                intensity=kernel.flops / kernel.nbytes,
                share=count * kernel.flops / total if total else 0.0,
            )
        )
    text = isinstance(getattr(rows[0], sort), str) if rows else True
    return sorted(rows, key=lambda row: getattr(row, sort), reverse=not text)


def format_shapes(kernel: Kernel) -> str:
    """A kernel's parameters as text: ``1×77×768, 768×768 -> 1×77×768``; a dtype other than float32 is named."""
    parts = [_format_spec(spec) for spec in kernel.params]
    inputs = [part for index, part in enumerate(parts) if index not in kernel.outputs]
    return f"{', '.join(inputs)} -> {', '.join(parts[index] for index in kernel.outputs)}"


def _format_spec(spec: TensorSpec) -> str:
    shape = "×".join(str(extent) for extent in spec.shape) or "scalar"
    return shape if spec.dtype == "float32" else f"{shape}:{spec.dtype}"


def make_kernel(name: str, func: PrimFunc, outputs: int = 1) -> Kernel:
    """The kernel that ``func`` is; ``name`` is TVM's name for it, and the last ``outputs`` parameters are written."""
    import tvm
    from tvm.s_tir.analysis import estimate_tir_flops

    from ...database.tvm.kernel_identity import canonical_text, with_canonical_names

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
    """TVM's function name without its counters, and the id's first hex digits: ``conv2d_add_silu_1f3a9c2e``.

    TVM numbers operators of one name (``conv2d12``), in the order in which it meets them: the numbers say nothing.
    Operators that only rename axes are left out beside others, a run of one operator is named once, and a long fusion
    by its beginning.
    """
    operators = re.sub(r"(?<![^_])(tir|fused)_", "", name)
    computing = re.sub(r"(?<![^_])(expand_dims|broadcast_to|reshape|squeeze|cast)\d*(?![^_])", "", operators)
    words: list[str] = []
    for word in (computing if computing.strip("_") else operators).split("_"):
        stem = re.sub(r"\d+$", "", word)
        if stem and (not words or words[-1] != stem) and len("_".join(words)) < _NAME_LENGTH:
            words.append(stem)
    return "_".join([*words, identity[:8]])


def total_flops(capture: Capture, steps: int) -> float:
    """Floating-point operations of one batch of images."""
    return math.fsum(
        count * capture.kernels[kernel].flops for (_, kernel), count in capture.calls_per_image(steps).items()
    )
