"""A captured model as plain data: its kernels, and per stage a straight line of kernel calls over planned tensors.

A `Kernel` is TensorIR as fusion leaves it, without a schedule. A `Stage` lists which kernels run on which tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..support.enums import AttentionForm, ComputePrecision, WeightPrecision

if TYPE_CHECKING:
    from tvm.tirx import PrimFunc


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape (in elements) and dtype (``float32``, ``int32``, …) of a tensor; row-major, densely packed."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class WeightFormat:
    """How a float32 weight of ``shape`` is stored, to be decoded where a kernel reads it (docs/bundle.md, "Weights").

    What kernels pass on to each other as half floats has such a format, too. Quantised weights have groups along the
    axes ``terms[0]`` to ``terms[1] - 1``, over which their kernels sum.
    """

    shape: tuple[int, ...]
    precision: WeightPrecision
    terms: tuple[int, int] = (0, 0)

    @property
    def extents(self) -> tuple[int, int, int]:
        """Elements along the axes before the sum's, along the sum's, and along those behind."""
        first, end = self.terms
        return math.prod(self.shape[:first]), math.prod(self.shape[first:end]), math.prod(self.shape[end:])


@dataclass(frozen=True)
class Operand:
    """One argument of a call: ``nbytes`` bytes at byte ``offset`` of tensor ``index`` in ``space``.

    The spaces are the stage's inputs, params (weights after the weight transform), constants, outputs and temps
    (intermediate tensors). A temp is one value with one lifetime; the bundle builder lets temps share memory.
    """

    space: Literal["input", "param", "constant", "temp", "output"]
    index: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Call:
    """One launch of the kernel with id ``kernel``; operands in the order of the TensorIR function's parameters."""

    kernel: str
    operands: tuple[Operand, ...]


@dataclass
class Stage:
    """One network as a straight line of calls.

    ``temps`` are the sizes of the intermediate tensors in bytes. ``weight_names`` are the checkpoint tensors that
    ``weight_transform`` (a Relax module as TVM JSON, function ``main_transform_params``) turns into float32 weights.
    ``weight_formats`` tell how these are stored: each one takes the next params, a quantised one two.
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
    weight_formats: list[WeightFormat] = field(default_factory=list)

    def calls_per_kernel(self) -> dict[str, int]:
        """Return the launches of each kernel in one run of the stage, by kernel id."""
        counts: dict[str, int] = {}
        for call in self.calls:
            counts[call.kernel] = counts.get(call.kernel, 0) + 1
        return counts


@dataclass(frozen=True, eq=False)
class Kernel:
    """One distinct fused TensorIR function.

    Attributes:
        id: SHA-256 of ``text``.
        name: the fused operators and the id's first hex digits, for people.
        text: canonical text of the function (see `wgtune.database.tvm.kernel_identity`).
        func: the function.
        params: its parameters, in order.
        outputs: indices of the parameters that the kernel writes.
        flops: floating-point operations of one launch.
        nbytes: size of all parameters in bytes, each counted once.
    """

    id: str
    name: str
    text: str
    func: PrimFunc
    params: tuple[TensorSpec, ...]
    outputs: tuple[int, ...]
    flops: float
    nbytes: int


DEFAULT_ATTENTION = AttentionForm.FUSED
"""How attention is captured unless something else is asked for."""


@dataclass(frozen=True)
class CaptureOptions:
    """Options of a capture.

    Attributes:
        width: of the image in pixels; None for the model's own.
        height: likewise.
        batch: images at once.
        guidance: whether the UNet runs on the negative and the positive prompt, which doubles its batch.
        max_binding: most bytes that a kernel binds of one tensor, as far as larger ones can be computed in parts.
        weights: how weights lie in GPU memory.
        attention: whether it is one kernel.
        compute: precision of what kernels pass on to each other; it changes no weight.
    """

    width: int | None = None
    height: int | None = None
    batch: int = 1
    guidance: bool = True
    max_binding: int = 128 << 20
    weights: WeightPrecision = WeightPrecision.F32
    attention: AttentionForm = DEFAULT_ATTENTION
    compute: ComputePrecision = ComputePrecision.F32

    def runs_per_image(self, stage: str, steps: int) -> int:
        """Return the runs of ``stage`` for one batch of images at ``steps`` model calls.

        The text stage runs once per prompt, and with guidance once more per negative prompt. The UNet runs once a step.
        """
        if stage.startswith("clip"):
            return self.batch * (2 if self.guidance else 1)
        return steps if stage == "unet" else 1


@dataclass
class Capture:
    """A captured model.

    ``key`` is the SHA-256 of everything that determines the capture. ``stages`` are in order of execution.
    """

    key: str
    model: str
    options: CaptureOptions
    stages: dict[str, Stage]
    kernels: dict[str, Kernel]

    def calls_per_image(self, steps: int) -> dict[tuple[str, str], int]:
        """Return launches by ``(stage, kernel id)`` for one batch of images at ``steps`` model calls."""
        return {
            (stage, kernel): count * self.options.runs_per_image(stage, steps)
            for stage in self.stages
            for kernel, count in self.stages[stage].calls_per_kernel().items()
        }
