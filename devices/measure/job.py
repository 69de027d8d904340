"""What a worker is asked to measure, and what it answers: the plain data of the protocol, no GPU code."""

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
    """Seconds before a worker is killed: starting up (and moving data), compiling pipelines, one run of a program."""

    start_s: float = 60.0
    compile_s: float = 30.0
    run_s: float = 20.0


@dataclass(frozen=True)
class Sampling:
    """When measuring is enough. Times in seconds.

    The verified first run and ``warmup`` passes behind it are never samples. Then samples are taken until the 95 %
    confidence interval of their median ends within ``precision`` of it on either side, but at least
    ``min_samples`` in ``min_seconds``; or until ``max_seconds`` are over, or ``max_samples`` are in.

    Two kinds of candidates need less, because their rank is all that search needs. One whose interval lies above
    ``rival_s`` is measured no further. One whose first run takes longer than ``give_up_s`` gets ``min_samples_slow``.

    ``cache`` says what a run finds in the GPU's caches.
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

    ``case`` is a safetensors file with the arguments and what must come out: a tensor ``arg<i>`` for each input
    parameter i and ``expected<i>`` for each output parameter i (output buffers are poisoned with NaN, or all ones
    bits for integers). An output element passes when ``|got − expected| ≤ atol + rtol · |expected|``; NaN never does.
    ``floor_s`` is the shortest time that is believed.

    ``upcoming`` is the program of the job that is likely to come next: a worker that can compiles it meanwhile.
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
    """How a job ended. Times in seconds; ``samples_s`` in the order taken, one per run of the whole program.

    ``timer`` says what ``samples_s`` was read from: GPU timestamp queries, or wall-clock time from submission to the
    end of the work. Either way a sample of a short program is the mean over many runs in one compute pass.
    ``warmup_s`` are the runs before them, of which the first is the verified one: they say nothing about the program.
    ``compile_s`` is what the driver spent before the first real run, ``run_s`` all dispatches together, ``verify_s``
    the transfers and the comparison. ``max_error`` is the largest ``|got − expected|``, NaN when the output held one.
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
        """Whether the program failed because memory did not do, by what the error says."""
        return self.state.crash and "out of memory" in self.error.lower()


@dataclass(frozen=True)
class Peaks:
    """Single-precision operations and bytes (read and written) a second, the most that was seen."""

    flops_per_s: float
    bytes_per_s: float
