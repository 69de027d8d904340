"""What a worker is asked to measure, and what it answers: the plain data of the protocol, no GPU code."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..states import TrialState
from .program import Program


@dataclass(frozen=True)
class Timeouts:
    """Seconds before a worker is killed: starting up (and moving data), compiling pipelines, one run of a program."""

    start_s: float = 60.0
    compile_s: float = 30.0
    run_s: float = 20.0


@dataclass(frozen=True)
class Sampling:
    """When measuring is enough: after ``warmup`` runs, ``min_samples`` and ``min_seconds`` of samples are in.

    ``max_samples`` ends it in any case. A candidate whose first run takes longer than ``give_up_s`` keeps the samples
    it has after ``min_samples_slow`` runs: it is no rival, and its rank is all that search needs.
    """

    warmup: int = 1
    min_samples: int = 5
    min_seconds: float = 0.05
    max_samples: int = 100
    give_up_s: float | None = None
    min_samples_slow: int = 1


@dataclass(frozen=True)
class MeasureJob:
    """One program to run, time and verify.

    ``case`` is a safetensors file with the arguments and what must come out: a tensor ``arg<i>`` for each input
    parameter i and ``expected<i>`` for each output parameter i (output buffers are poisoned with NaN, or all ones
    bits for integers). An output element passes when ``|got − expected| ≤ atol + rtol · |expected|``; NaN never does.
    ``floor_s`` is the shortest time that is believed.
    """

    program: Program
    case: Path
    rtol: float
    atol: float
    floor_s: float = 0.0
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Measurement:
    """How a job ended. Times in seconds; ``samples_s`` in the order taken, one per run of the whole program.

    ``timer`` says what ``samples_s`` was read from: GPU timestamp queries, or wall-clock time from submission to the
    end of the work. Either way a sample of a short program is the mean over many runs in one compute pass. The first
    run is the verified one; it is a sample too only for programs given up as slow (see `Sampling`). ``compile_s`` is
    what the driver spent before the first real run, ``run_s`` all dispatches together, ``verify_s`` the transfers and
    the comparison. ``max_error`` is the largest ``|got − expected|``, NaN when the output held one.
    """

    state: TrialState
    samples_s: tuple[float, ...] = ()
    timer: Literal["timestamp", "wall", ""] = ""
    compile_s: float = 0.0
    run_s: float = 0.0
    verify_s: float = 0.0
    max_error: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Peaks:
    """Single-precision operations and bytes (read and written) a second, the most that was seen."""

    flops_per_s: float
    bytes_per_s: float
