"""What a tuning session tells whoever watches it: plain data, no behaviour."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Protocol

from ...database.schema.records import SessionOutcome, TrialKind
from ...support.enums import TrialState


class SessionPhase(str, Enum):
    """What a session spends its time on."""

    SEARCH = "search"
    """Drawing, replaying and ranking schedules; learning from results."""
    BUILD = "build"
    """Lowering schedules to WGSL."""
    REFERENCE = "reference"
    """Computing on the CPU what a kernel must give; kept, so only once per kernel."""
    COMPILE = "compile"
    """The driver compiling pipelines."""
    RUN = "run"
    """Kernels running on the device."""
    VERIFY = "verify"
    """Moving data to and from the device and comparing results."""
    COMMIT = "commit"
    """Writing to the database."""
    WORKER = "worker"
    """Talking to the worker process, and starting it again after a crash."""
    WAIT = "wait"
    """Waiting for kernels that other tuners are at."""


@dataclass(frozen=True)
class KernelPlan:
    """One kernel at the start of a session: launches per image, and what earlier sessions know of it, in seconds."""

    id: str
    name: str
    stages: tuple[str, ...]
    calls: int
    trials: int
    baseline_s: float | None
    best_s: float | None


@dataclass(frozen=True)
class SessionStarted:
    """``trials_left`` are search trials, None without a limit; ``minutes`` the limit on this run's time."""

    session_id: int
    model: str
    device: str
    software: bool
    tier: str
    kernels: tuple[KernelPlan, ...]
    trials_left: int | None
    minutes: float | None
    abandoned: int
    """Trials that a killed session had left running."""


@dataclass(frozen=True)
class PhaseStarted:
    """The session turns to a phase that takes a while."""

    kernel_id: str
    phase: SessionPhase


@dataclass(frozen=True)
class TrialStarted:
    """A candidate is committed as running."""

    kernel_id: str
    kind: TrialKind


@dataclass(frozen=True)
class TrialEnded:
    """A trial is committed as ended; ``latency_s`` is None unless it is ``ok``, ``best_s`` counts it already."""

    kernel_id: str
    kind: TrialKind
    state: TrialState
    latency_s: float | None
    baseline_s: float | None
    best_s: float | None
    trials_left: int | None
    error: str


@dataclass(frozen=True)
class KernelExhausted:
    """Search has no further schedule for the kernel; its trials go to others."""

    kernel_id: str
    trials_left: int | None


@dataclass(frozen=True)
class KernelSkipped:
    """The kernel called ``name`` cannot be tuned, and why. May come before `SessionStarted`."""

    kernel_id: str
    name: str
    reason: str


@dataclass(frozen=True)
class Drifted:
    """The device is not as fast, or as slow, as it was: the baseline that is watched takes ``ratio`` times as long.

    ``message`` is the text shown to users, with the number of trials to be repeated.
    """

    kernel_id: str
    ratio: float
    message: str


@dataclass(frozen=True)
class Stopping:
    """A Ctrl-C or SIGTERM arrived: the session ends, or with ``at_once``, the second one, the process does now."""

    at_once: bool = False


@dataclass(frozen=True)
class TuneSummary:
    """How a session ended.

    ``session_id`` is None where there was nothing to do. ``baseline_s`` and ``best_s`` are seconds per image over the
    kernels that have both. ``trials`` counts this session's by state; ``seconds`` says where its time went: one phase
    at a time, so that they add up to no more than ``elapsed_s``.
    """

    session_id: int | None
    outcome: SessionOutcome
    kernels: int
    tuned: int
    """Kernels whose best record is a search trial."""
    measured: int
    """Kernels that have a verified record."""
    baseline_s: float
    best_s: float
    trials: dict[TrialState, int] = field(default_factory=dict)
    seconds: dict[SessionPhase, float] = field(default_factory=dict)
    elapsed_s: float = 0.0
    trials_left: int | None = 0
    skipped: dict[str, str] = field(default_factory=dict)
    """Why kernels could not be tuned, by name."""
    drift: tuple[str, ...] = ()
    """How the device's speed changed meanwhile, in words."""
    overlapped: dict[SessionPhase, float] = field(default_factory=dict)
    """Seconds of work done while the device was measuring; none of them is in ``seconds``."""

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it."""
        return self.outcome is SessionOutcome.INTERRUPTED

    @property
    def speedup(self) -> float | None:
        """Baseline against best, per image; None where nothing is measured."""
        return self.baseline_s / self.best_s if self.best_s else None

    def to_json(self) -> dict[str, Any]:
        """This summary as JSON values."""
        plain = {
            "outcome": self.outcome.value,
            "trials": {state.value: count for state, count in self.trials.items()},
            "seconds": _rounded(self.seconds),
            "overlapped": _rounded(self.overlapped),
            "speedup": self.speedup,
        }
        return {**asdict(self), **plain}


def _rounded(spent: dict[SessionPhase, float]) -> dict[str, float]:
    return {phase.value: round(seconds, 3) for phase, seconds in spent.items()}


@dataclass(frozen=True)
class SessionEnded:
    """The last event."""

    summary: TuneSummary


Event = (
    SessionStarted
    | PhaseStarted
    | TrialStarted
    | TrialEnded
    | KernelExhausted
    | KernelSkipped
    | Drifted
    | Stopping
    | SessionEnded
)


class TuneListener(Protocol):
    """Watches a session. Called in the session's thread: quick, and raising nothing."""

    def on(self, event: Event) -> None:
        """Takes note of ``event``."""
