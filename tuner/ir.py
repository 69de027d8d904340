"""What capture makes of a model: its kernels, and per stage a straight line of kernel calls over planned tensors.

Nothing here knows schedules: a `Kernel` is TensorIR as it comes from fusion, a `Stage` says which are called on what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape (elements) and dtype (``float32``, ``int32``, …) of a tensor; row-major, densely packed."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Operand:
    """One argument of a call: ``nbytes`` bytes at byte ``offset`` of tensor ``index`` in ``space``.

    Spaces are the stage's ``input``s, ``param``s (weights after the weight transform), ``constant``s, ``output``s and
    ``temp``s. A temp is one value with one lifetime: sharing memory between temps is the builder's business.
    """

    space: Literal["input", "param", "constant", "temp", "output"]
    index: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Call:
    """One launch of kernel ``kernel`` (its id); operands in the order of the TensorIR function's parameters."""

    kernel: str
    operands: tuple[Operand, ...]


@dataclass
class Stage:
    """One network as a straight line of calls.

    ``temps`` gives the bytes of each intermediate. ``weight_names`` are the names of the checkpoint tensors that
    ``weight_transform`` (a Relax module as TVM JSON, function ``main_transform_params``) turns into ``params``.
    """

    name: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    params: list[TensorSpec]
    constants: list[np.ndarray]
    temps: list[int]
    calls: list[Call]
    weight_names: list[str] = field(default_factory=list)
    weight_transform: str = ""

    def calls_per_kernel(self) -> dict[str, int]:
        """How often one run of the stage launches each kernel, by kernel id."""
        counts: dict[str, int] = {}
        for call in self.calls:
            counts[call.kernel] = counts.get(call.kernel, 0) + 1
        return counts


@dataclass(frozen=True, eq=False)
class Kernel:
    """One distinct fused TensorIR function.

    ``id`` is the SHA-256 of ``text``, the canonical text (see `tvm.kernel_identity`). ``name`` is for reading:
    the fused operators and the id's first hex digits. ``params`` follow the signature; ``outputs`` are the indices that
    the kernel writes. ``flops`` counts floating-point operations of one launch, ``nbytes`` each parameter's bytes once.
    """

    id: str
    name: str
    text: str
    func: PrimFunc
    params: tuple[TensorSpec, ...]
    outputs: tuple[int, ...]
    flops: float
    nbytes: int


@dataclass(frozen=True)
class CaptureOptions:
    """What shapes a capture beside the model.

    ``width`` and ``height`` are of the image in pixels, None for the model's own size; ``batch`` is images at once;
    ``guidance`` runs the UNet on both the negative and the positive prompt (twice the batch); ``max_binding`` bounds,
    in bytes, the attention scores that are kept at once.
    """

    width: int | None = None
    height: int | None = None
    batch: int = 1
    guidance: bool = True
    max_binding: int = 128 << 20

    def runs_per_image(self, stage: str, steps: int) -> int:
        """How often ``stage`` runs for one batch of images at ``steps`` model calls.

        The text stage runs once per prompt and, with guidance, once more for the negative one; the UNet once a step.
        """
        if stage.startswith("clip"):
            return self.batch * (2 if self.guidance else 1)
        return steps if stage == "unet" else 1


@dataclass
class Capture:
    """A captured model. ``key`` is the SHA-256 of everything that shaped it; ``stages`` are in order of execution."""

    key: str
    model: str
    options: CaptureOptions
    stages: dict[str, Stage]
    kernels: dict[str, Kernel]

    def calls_per_image(self, steps: int) -> dict[tuple[str, str], int]:
        """Launches per ``(stage, kernel id)`` for one batch of images at ``steps`` model calls."""
        return {
            (stage, kernel): count * self.options.runs_per_image(stage, steps)
            for stage in self.stages
            for kernel, count in self.stages[stage].calls_per_kernel().items()
        }
