"""Enumerations that several packages share: state of a trial, runtime, cache, nearness of a device, precisions."""

from __future__ import annotations

from enum import Enum


class TrialState(str, Enum):
    """State of one attempt at one candidate on one device.

    A trial starts ``pending`` or ``running`` and ends in exactly one of the others.
    """

    PENDING = "pending"
    RUNNING = "running"
    OK = "ok"
    """Measured and verified: the trial is a record."""
    UNVERIFIED = "unverified"
    """Measured by a program that does not check results, such as stock MetaSchedule: a time, but no record."""
    BUILD_ERROR = "build_error"
    """No WGSL came out, or the driver refused it."""
    COMPILE_TIMEOUT = "compile_timeout"
    """The driver did not finish compiling the pipeline in time."""
    RUN_TIMEOUT = "run_timeout"
    """A dispatch did not finish in time."""
    RUN_ERROR = "run_error"
    """Running failed, or took the worker process down with it."""
    WRONG_RESULT = "wrong_result"
    """The output differs from the reference, or holds a NaN."""
    IMPLAUSIBLE = "implausible"
    """Measured faster than the device can be."""
    DEVICE_LOST = "device_lost"
    """The driver reported that the device is gone."""
    ABANDONED = "abandoned"
    """The tuner stopped while the trial was running; nothing is known about the candidate."""

    @property
    def ended(self) -> bool:
        """Whether no other state can follow."""
        return self not in (TrialState.PENDING, TrialState.RUNNING)

    @property
    def fault(self) -> bool:
        """Whether the candidate itself caused the failure."""
        return self.ended and self not in (TrialState.OK, TrialState.UNVERIFIED, TrialState.ABANDONED)

    @property
    def crash(self) -> bool:
        """Whether the worker process or the device went down with it. A busy or unlucky machine can cause that too."""
        return self in (
            TrialState.COMPILE_TIMEOUT,
            TrialState.RUN_TIMEOUT,
            TrialState.RUN_ERROR,
            TrialState.DEVICE_LOST,
        )

    @property
    def timed(self) -> bool:
        """Whether it has a latency."""
        return self in (TrialState.OK, TrialState.UNVERIFIED)


QUARANTINE_AFTER = 2
"""Times that a program may take its worker down, under one driver version, before it is never run again there."""

SUSPEND_AFTER = 10
"""Programs in a row that take the worker down before the device is suspected, and must run a known good one first."""


class CacheState(str, Enum):
    """State of the GPU's caches before a timed run. Times of different states are never ranked together."""

    WARM = "warm"
    """What the run before it left there: the same inputs, as far as they fit."""
    COLD = "cold"
    """Nothing of use: a large buffer was written before each run."""


class Runtime(str, Enum):
    """Software that measures trials on a device. Times of different runtimes are never ranked together."""

    WGPU = "wgpu"
    """The WGSL itself, natively through wgpu."""
    TVM_CUDA = "tvm-cuda"
    """Native code through TVM's CUDA runtime."""
    TVM_METAL = "tvm-metal"
    """Native code through TVM's Metal runtime."""
    BROWSER = "browser"
    """The WGSL in a browser's page."""
    TVM = "tvm"
    """Native code through TVM on any other target, such as a CPU: what stock MetaSchedule measures."""


class Match(str, Enum):
    """How similar the device of a record is to the one at hand, the most similar first."""

    EXACT = "exact"
    """This very device."""
    MODEL = "model"
    """The same GPU behind another backend, browser or name."""
    ARCHITECTURE = "architecture"
    VENDOR = "vendor"
    PORTABLE = "portable"
    """Any other GPU."""

    @property
    def borrowed(self) -> bool:
        """Whether the record is another device's: neither measured nor verified on this one."""
        return self is not Match.EXACT

    @property
    def steps(self) -> tuple[Match, ...]:
        """This match and the nearer ones, the nearest first."""
        order = tuple(Match)
        return order[: order.index(self) + 1]


class WeightPrecision(str, Enum):
    """How a model's weights travel and lie in GPU memory; kernels compute with float32 values of them.

    The choice for a model. Weights that lose too much keep more bits (`wgtune.tuner.capture.weights.reads`).
    """

    F32 = "f32"
    F16 = "f16"
    """Half floats."""
    Q8 = "q8"
    """Groups of 8-bit integers, each with a scale."""
    Q4 = "q4"
    """Groups of 4-bit integers, each with a scale."""


class ComputePrecision(str, Enum):
    """Precision of what kernels pass on to each other. Sums, norms and all other arithmetic are float32's in both."""

    F32 = "f32"
    F16 = "f16"
    """Half floats, which a kernel rounds its results to; needs WebGPU's feature ``shader-f16``."""


class AttentionForm(str, Enum):
    """How attention is computed."""

    FUSED = "fused"
    """In one kernel, which keeps no scores."""
    SPLIT = "split"
    """As scores, softmax and weighted values, one kernel after another."""
