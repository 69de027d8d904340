"""The rows of `wgtune kernels`: how often each kernel runs, on what shapes, and its share of the model's work."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...devices.limits import MIB
from ...support.errors import UsageError
from ..ir import Capture, Kernel, TensorSpec


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
    """Return a row for each stage and kernel, sorted by column ``sort``, numbers in falling order.

    A kernel that two stages use has one row in each. Raises UsageError for an unknown column.

    Args:
        capture: the captured model.
        steps: model calls per image.
        sort: a field of `KernelRow`.
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
                shapes=_format_shapes(kernel),
                gflop=kernel.flops / 1e9,
                mib=kernel.nbytes / MIB,
                intensity=kernel.flops / kernel.nbytes,
                share=count * kernel.flops / total if total else 0.0,
            )
        )
    text = isinstance(getattr(rows[0], sort), str) if rows else True
    return sorted(rows, key=lambda row: getattr(row, sort), reverse=not text)


def _format_shapes(kernel: Kernel) -> str:
    """Format a kernel's parameters: ``1×77×768, 768×768 -> 1×77×768``; a dtype other than float32 is named."""
    parts = [_format_spec(spec) for spec in kernel.params]
    inputs = [part for index, part in enumerate(parts) if index not in kernel.outputs]
    return f"{', '.join(inputs)} -> {', '.join(parts[index] for index in kernel.outputs)}"


def _format_spec(spec: TensorSpec) -> str:
    shape = "×".join(str(extent) for extent in spec.shape) or "scalar"
    return shape if spec.dtype == "float32" else f"{shape}:{spec.dtype}"
