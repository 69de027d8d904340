"""Measure jobs and measurements: the request to a worker and its answer. Plain data, no GPU code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ...support.enums import CacheState, TrialState
from ..program import AnyProgram

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
"""A duration; checked where a measurement arrives as JSON."""

_STRICT: ConfigDict = {"extra": "forbid"}


@dataclass(frozen=True)
class Timeouts:
    """Seconds after which a worker is killed: for starting or moving data, for compiling, for one submission."""

    start_s: float = 60.0
    compile_s: float = 30.0
    run_s: float = 20.0


@dataclass(frozen=True)
class Sampling:
    """Stopping rule of a measurement. Times in seconds.

    The verified first run and the ``warmup`` passes after it are not samples. Samples are then taken until the 95 %
    confidence interval of their median lies within a fraction ``precision`` of it on either side, but at least
    ``min_samples`` and for ``min_seconds``; at most for ``max_seconds``, and ``max_samples``.

    Search needs only the rank of slow candidates, so two kinds get fewer samples. Sampling ends when the interval lies
    above ``rival_s``. A program whose first run takes longer than ``give_up_s`` gets ``min_samples_slow`` samples.

    ``cache`` is the state of the GPU's caches before each run.
    """

    __pydantic_config__ = _STRICT

    warmup: int = 1
    min_samples: int = 5
    min_seconds: float = 0.02
    max_seconds: float = 0.25
    max_samples: int = 200
    precision: float = 0.02
    rival_s: float | None = None
    give_up_s: float | None = None
    min_samples_slow: int = 1
    cache: CacheState = CacheState.WARM


@dataclass(frozen=True)
class MeasureJob:
    """One program to run, time and verify.

    Attributes:
        program: What to measure.
        case: A safetensors file with a tensor ``arg<i>`` for each input parameter i, and ``expected<i>`` for each
            output parameter i. Outputs are poisoned with ones in every bit, which is NaN for floats.
        rtol: An output element passes when ``|got − expected| ≤ atol + rtol · |expected|``. NaN never passes.
        atol: See ``rtol``.
        floor_s: Shortest plausible time in seconds.
        sampling: The stopping rule.
        upcoming: Program of the job that is likely to come next. A worker may compile it meanwhile.
    """

    __pydantic_config__ = _STRICT

    program: AnyProgram
    case: Path
    rtol: float
    atol: float
    floor_s: float = 0.0
    sampling: Sampling = field(default_factory=Sampling)
    upcoming: AnyProgram | None = None


@dataclass(frozen=True)
class Measurement:
    """How a job ended. Times in seconds.

    Attributes:
        state: The end state.
        samples_s: Time of one run of the whole program, in the order taken. A sample of a short program is the mean
            over many runs in one compute pass.
        timer: Clock of the samples: GPU timestamp queries, or wall-clock time from submission to completion.
        compile_s: Time of compiling, until the first run.
        run_s: Time of all submissions together.
        verify_s: Time of transfers and comparison.
        max_error: Largest ``|got − expected|``; NaN when the output holds one, None when nothing was compared.
        error: Why the job did not end ``ok``.
        warmup_s: Runs before the samples, the verified one first. They say nothing about the program.
    """

    __pydantic_config__ = _STRICT

    state: TrialState
    samples_s: tuple[Seconds, ...] = ()
    timer: Literal["timestamp", "wall", ""] = ""
    compile_s: Seconds = 0.0
    run_s: Seconds = 0.0
    verify_s: Seconds = 0.0
    max_error: Annotated[float, Field(strict=True)] | None = None
    error: str = ""
    warmup_s: tuple[Seconds, ...] = ()

    @property
    def out_of_memory(self) -> bool:
        """Whether the program failed for lack of memory, judged by the error's text."""
        return self.state.crash and "out of memory" in self.error.lower()


@dataclass(frozen=True)
class Peaks:
    """What bounds the time of any program on a device.

    Attributes:
        flops_per_s: Highest measured single-precision operations per second.
        bytes_per_s: Highest measured bytes read and written per second.
        launch_s: Seconds that one more dispatch adds to a pass, however little it computes; 0 where unknown.
    """

    flops_per_s: float
    bytes_per_s: float
    launch_s: float = 0.0
