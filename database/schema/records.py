"""The records that enter and leave the database: frozen dataclasses without SQL or TVM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from ...support.enums import CacheState, Runtime, TrialState

UNNAMED_DRIVER = "a driver without a name"
"""The name of a driver that did not report one, in messages."""


class TrialKind(str, Enum):
    """Where a trial's schedule comes from."""

    BASELINE = "baseline"
    """The untuned default for the target."""
    SEARCH = "search"
    """Proposed by search."""
    TRANSFER = "transfer"
    """Taken from another device's records, or from what another program measured and nobody verified."""
    CHECK = "check"
    """Measured before, and now again to see whether times hold; never ranked, never a record."""


class ReplayStatus(str, Enum):
    """Whether an installed TVM can still apply a schedule."""

    REPLAYABLE = "replayable"
    STALE = "stale"
    """It cannot; such a record is stored and never used."""


class AliasLevel(str, Enum):
    """Which part of a device's description an alias is about."""

    VENDOR = "vendor"
    ARCHITECTURE = "architecture"
    MODEL = "model"


class OpaqueKind(str, Enum):
    """The kind of an entry that this program cannot read."""

    WORKLOAD = "workload"
    RECORD = "record"


class SessionOutcome(str, Enum):
    """The state of a session."""

    RUNNING = "running"
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    """Stopped by the user, cleanly."""
    FAILED = "failed"
    """Ended by an error."""
    KILLED = "killed"
    """Its process was found dead."""


@dataclass(frozen=True)
class DeviceInfo:
    """A GPU; ``key`` identifies it, as in ``vulkan:llvmpipe``. ``software``: it is emulated on a CPU."""

    key: str
    backend: str
    vendor: str
    architecture: str
    model: str
    software: bool


class Param(NamedTuple):
    """One parameter of a workload: shape in elements, dtype as in ``float32``."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class TvmForm(NamedTuple):
    """A workload as one version of TVM writes it: the PrimFunc in TVM's JSON, and TVM's structural hash of it."""

    tvm_version: str
    module: str
    structural_hash: str


@dataclass(frozen=True)
class WorkloadInfo:
    """A kernel as the database knows it. ``id`` is the SHA-256 of ``text``, its canonical text.

    ``forms`` are TVM's, one for each version that has written it, by version. ``outputs`` are the indices into
    ``params`` that the kernel writes. ``flops`` counts the floating-point operations of one launch,
    ``nbytes`` each parameter's bytes once.
    """

    id: str
    name: str
    text: str
    forms: tuple[TvmForm, ...]
    params: tuple[Param, ...]
    outputs: tuple[int, ...]
    flops: float
    nbytes: int


def unnamed(workload_id: str) -> str:
    """Return the name of a workload without a name of its own: TVM calls every function ``main``."""
    return f"tvm_{workload_id[:8]}"


@dataclass(frozen=True)
class ModelInfo:
    """A captured model.

    ``options`` are the capture's options as plain values; ``steps_hint`` its usual number of steps.
    """

    capture_key: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    steps_hint: int = 20


@dataclass(frozen=True)
class ModelKernel:
    """One run of ``stage`` launches the workload ``calls`` times; ``order`` is its place in order of first launch."""

    stage: str
    workload_id: str
    calls: int
    order: int


@dataclass(frozen=True)
class SessionInfo:
    """One tuning run as it begins: device × driver × toolchain × model × budget × reason.

    ``adapter`` holds the device's limits and features as found, ``toolchain`` versions by package name, ``budget``
    what was asked for, ``host`` and ``pid`` the process that runs it. ``target`` is the JSON of TVM's target where the
    tier does not say it, as for what stock MetaSchedule measured. ``cache`` is what timed runs found in the caches.
    ``calibration`` is what the device was measured to do at most, by the names of `devices.measure.job.Peaks`; empty
    where nothing was measured, and in sessions of older versions.
    """

    device: DeviceInfo
    runtime: Runtime
    driver: str
    adapter: Mapping[str, Any]
    toolchain: Mapping[str, str]
    model: str
    capture_key: str
    tier: str
    budget: Mapping[str, Any]
    seed: int
    reason: str
    host: str
    pid: int
    target: str = ""
    cache: CacheState = CacheState.WARM
    calibration: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionRecord:
    """A session as kept; times are in UTC, ``ended`` is None while it runs. ``uid`` is unique across databases."""

    session_id: int
    uid: str
    info: SessionInfo
    outcome: SessionOutcome
    started: datetime
    ended: datetime | None
    note: str


@dataclass(frozen=True)
class ReplayRecord:
    """Whether ``tvm_version`` could apply the schedule whose text is ``trace`` to a workload.

    ``reason`` says why not; ``program_digest`` is the SHA-256 of the program that came of it, empty where none was
    emitted.
    """

    workload_id: str
    trace: str
    tvm_version: str
    status: ReplayStatus
    reason: str = ""
    program_digest: str = ""


@dataclass(frozen=True)
class TrialStart:
    """A candidate about to be tried.

    ``trace`` is the schedule as JSON text, ``program_digest`` the SHA-256 of the emitted program (both empty where
    there is none), ``needs`` the program's requirements as JSON values, ``launches`` its number of dispatches. A
    ``repeat`` takes the place of the schedule's earlier trials in every ranking. ``features`` are what search knows of
    the schedule, of ``features_version``; empty where it did not propose it.
    """

    session_id: int
    workload_id: str
    kind: TrialKind
    trace: str
    program_digest: str
    needs: Mapping[str, Any]
    launches: int
    seed: int
    repeat: bool = False
    features: Mapping[str, float] = field(default_factory=dict)
    features_version: int = 0


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended. Times in seconds; ``timer`` says what ``samples_s`` were read from, ``warmup_s`` came first.

    ``max_error`` is the largest ``|got − expected|`` (NaN is kept as infinity: nothing is further off), to be read
    against ``atol + rtol · |expected|``.
    """

    state: TrialState
    samples_s: tuple[float, ...] = ()
    timer: str = ""
    compile_s: float = 0.0
    run_s: float = 0.0
    verify_s: float = 0.0
    max_error: float | None = None
    rtol: float = 0.0
    atol: float = 0.0
    error: str = ""
    warmup_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Record:
    """A trial that ended ``ok``: measured and verified.

    ``number`` counts the trials of its session from 1. ``latency_s`` is the median of ``samples_s``. ``compile_s`` is
    the time of compiling the program, there and then. ``created`` is UTC. ``layer`` is the file name of the release
    that it comes from, empty for the user's own database.
    """

    trial_id: int
    session_id: int
    workload_id: str
    device_key: str
    runtime: Runtime
    kind: TrialKind
    tier: str
    latency_s: float
    samples_s: tuple[float, ...]
    timer: str
    trace: str
    program_digest: str
    needs: Mapping[str, Any]
    launches: int
    max_error: float
    rtol: float
    atol: float
    created: datetime
    number: int = 0
    layer: str = ""
    compile_s: float = 0.0


@dataclass(frozen=True)
class TrialSummary:
    """The part of an ended trial that search needs; ``latency_s`` is None unless it ended ``ok``."""

    trial_id: int
    kind: TrialKind
    state: TrialState
    program_digest: str
    trace: str
    latency_s: float | None


@dataclass(frozen=True)
class TrialPoint:
    """An ended trial as a point in time (UTC); ``latency_s`` is None unless it ended ``ok``."""

    workload_id: str
    session_id: int
    state: TrialState
    latency_s: float | None
    ended: datetime
