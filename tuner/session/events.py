"""Events of a tuning session, and the interface of those who listen to them; plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Protocol

from ...database.schema.records import SessionOutcome, TrialKind
from ...support.enums import TrialState


class SessionPhase(str, Enum):
    """Phases of a session that its time is counted by."""

    SEARCH = "search"
    """Sampling, replaying and ranking schedules; training the cost model."""
    BUILD = "build"
    """Lowering schedules to WGSL or native code."""
    REFERENCE = "reference"
    """Computing a kernel's expected output on the CPU, once per kernel; it is cached on disk."""
    COMPILE = "compile"
    """The driver compiling pipelines."""
    RUN = "run"
    """Kernels running on the device."""
    VERIFY = "verify"
    """Transfers to and from the device, and comparing the output with the reference."""
    COMMIT = "commit"
    """Writing to the database."""
    WORKER = "worker"
    """Messages to and from the worker process, and restarting it after a crash."""
    WAIT = "wait"
    """Waiting for kernels that other tuners hold."""


@dataclass(frozen=True)
class KernelPlan:
    """A kernel at the start of a session: launches per image, and what earlier sessions measured, in seconds."""

    id: str
    name: str
    stages: tuple[str, ...]
    calls: int
    trials: int
    baseline_s: float | None
    best_s: float | None


@dataclass(frozen=True)
class SessionStarted:
    """The session began. ``trials_left`` are search trials, None if unlimited; ``minutes`` limit this session."""

    session_id: int
    model: str
    device: str
    software: bool
    tier: str
    kernels: tuple[KernelPlan, ...]
    trials_left: int | None
    minutes: float | None
    abandoned: int
    """Trials that dead sessions had left running; they are committed as abandoned now."""


@dataclass(frozen=True)
class PhaseStarted:
    """A phase began that takes a while."""

    kernel_id: str
    phase: SessionPhase


@dataclass(frozen=True)
class TrialStarted:
    """A trial is about to run."""

    kernel_id: str
    kind: TrialKind


@dataclass(frozen=True)
class TrialEnded:
    """A trial was committed as ended.

    ``latency_s`` is None unless the state is ``ok``; ``best_s`` takes this trial into account.
    """

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
    """The search has no further schedule for the kernel; its remaining trials go to other kernels."""

    kernel_id: str
    trials_left: int | None


@dataclass(frozen=True)
class KernelSkipped:
    """The kernel called ``name`` cannot be tuned, for ``reason``. May come before `SessionStarted`."""

    kernel_id: str
    name: str
    reason: str


@dataclass(frozen=True)
class Drifted:
    """The device's speed changed: the watched baseline takes ``ratio`` times as long as before.

    ``message`` is the text for users, with the number of trials to be repeated.
    """

    kernel_id: str
    ratio: float
    message: str


@dataclass(frozen=True)
class Stopping:
    """SIGINT or SIGTERM arrived. The session ends; if ``at_once`` (the second signal), the process ends now."""

    at_once: bool = False


@dataclass(frozen=True)
class TuneSummary:
    """The result of a session.

    ``session_id`` is None if there was nothing to do. ``baseline_s`` and ``best_s`` are seconds per image, summed over
    the kernels that have both. ``trials`` counts this session's trials by state. ``seconds`` are its time by phase;
    phases do not overlap, so their sum is at most ``elapsed_s``.
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
    """Why kernels could not be tuned, by kernel name."""
    drift: tuple[str, ...] = ()
    """One line per change of the device's speed."""
    overlapped: dict[SessionPhase, float] = field(default_factory=dict)
    """Seconds of work done while the device was measuring, by phase; none of them is in ``seconds``."""

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped the session."""
        return self.outcome is SessionOutcome.INTERRUPTED

    @property
    def speedup(self) -> float | None:
        """Baseline time over best time per image; None if nothing is measured."""
        return self.baseline_s / self.best_s if self.best_s else None

    def to_json(self) -> dict[str, Any]:
        """Return this summary as JSON values."""
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
    """The session ended. This is the last event."""

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
    """Listens to a session's events.

    Called in the session's thread, so `on` must return quickly and must not raise.
    """

    def on(self, event: Event) -> None:
        """Handle ``event``."""


class SilentListener:
    """A `TuneListener` that ignores every event."""

    def on(self, event: Event) -> None:
        """Ignore ``event``."""
