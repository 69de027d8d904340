"""State of a tuning session as its events show it: kernels, trials, progress and time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ...database.schema.records import TrialKind
from ...support.enums import TrialState
from ...tuner.session.events import (
    Drifted,
    Event,
    KernelExhausted,
    KernelPlan,
    KernelSkipped,
    PhaseStarted,
    SessionEnded,
    SessionPhase,
    SessionStarted,
    Stopping,
    TrialEnded,
    TrialStarted,
    TuneSummary,
)

_DOING = {
    SessionPhase.SEARCH: "searching",
    SessionPhase.REFERENCE: "computing its reference",
    SessionPhase.WAIT: "another tuner is at it",
}

_TRYING = {
    TrialKind.BASELINE: "baseline",
    TrialKind.CHECK: "measuring again",
    TrialKind.TRANSFER: "a relative's schedule",
}


@dataclass
class KernelView:
    """Current state of a kernel; times in seconds."""

    plan: KernelPlan
    trials: int
    baseline_s: float | None
    best_s: float | None

    @property
    def speedup(self) -> float | None:
        """Baseline time divided by best time; None where one is missing."""
        return self.baseline_s / self.best_s if self.baseline_s and self.best_s else None

    @property
    def time_s(self) -> float:
        """Best time in seconds per image; 0 where nothing is measured."""
        return self.plan.calls * (self.best_s or 0.0)


class SessionView:
    """State of a session; a `TuneListener`. ``clock`` returns seconds; tests replace it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._last_event = self._started
        self._spent = dict.fromkeys(TrialKind, 0.0)
        self.session: SessionStarted | None = None
        self.kernels: dict[str, KernelView] = {}
        self.current: KernelView | None = None
        self.doing = ""
        self.done: Counter[TrialKind] = Counter()
        self.states: Counter[TrialState] = Counter()
        self.baselines_left = 0
        self.trials_left: int | None = 0
        self.drift: list[str] = []
        self.stopping = False
        self.skipped: dict[str, str] = {}
        self.summary: TuneSummary | None = None

    def on(self, event: Event) -> None:
        """Update the state, as `TuneListener.on`."""
        now = self._clock()
        match event:
            case SessionStarted():
                self._begin(event)
            case PhaseStarted():
                self._turn_to(event.kernel_id, _DOING.get(event.phase, event.phase.value))
            case TrialStarted():
                self._turn_to(event.kernel_id, _TRYING.get(event.kind, "trying a candidate"))
            case TrialEnded():
                self._count(event, now - self._last_event)
            case KernelExhausted():
                self.trials_left = event.trials_left
            case KernelSkipped():
                self.skipped[event.name] = event.reason
            case Drifted():
                self.drift.append(event.message)
            case Stopping():
                self.stopping = True
            case SessionEnded():
                self.summary = event.summary
        if not isinstance(event, TrialStarted | PhaseStarted):
            self._last_event = now

    @property
    def elapsed_s(self) -> float:
        """Seconds since the view was made."""
        return self._clock() - self._started

    @property
    def fraction(self) -> float | None:
        """Share of the session's work that is done, from 0 to 1; None where the session has no limit."""
        limits = []
        if self.session is not None and self.session.minutes is not None:
            limits.append(min(1.0, self.elapsed_s / max(1e-9, 60 * self.session.minutes)))
        if self.trials_left is not None:
            left = self.trials_left + self.baselines_left
            limits.append(sum(self.done.values()) / max(1, sum(self.done.values()) + left))
        return max(limits, default=None)

    @property
    def eta_s(self) -> float | None:
        """Estimate of the seconds left, from the pace so far; None while there is no basis for one."""
        limits = []
        if self.session is not None and self.session.minutes is not None:
            limits.append(max(0.0, 60 * self.session.minutes - self.elapsed_s))
        if self.trials_left is not None:
            pace = {kind: self._spent[kind] / self.done[kind] for kind in TrialKind if self.done[kind]}
            if pace:
                usual = sum(self._spent.values()) / sum(self.done.values())
                limits.append(
                    self.baselines_left * pace.get(TrialKind.BASELINE, usual)
                    + self.trials_left * pace.get(TrialKind.SEARCH, usual)
                )
        return min(limits, default=None)

    @property
    def image_s(self) -> tuple[float, float]:
        """Seconds per image, untuned and now, summed over the kernels that have both times."""
        both = [k for k in self.kernels.values() if k.baseline_s is not None and k.best_s is not None]
        return sum(k.plan.calls * (k.baseline_s or 0.0) for k in both), sum(k.time_s for k in both)

    @property
    def failures(self) -> dict[TrialState, int]:
        """Number of trials per state other than `ok`, the most frequent first."""
        return {state: count for state, count in self.states.most_common() if state is not TrialState.OK}

    def _begin(self, event: SessionStarted) -> None:
        self.session = event
        self.kernels = {plan.id: KernelView(plan, plan.trials, plan.baseline_s, plan.best_s) for plan in event.kernels}
        self.baselines_left = sum(1 for plan in event.kernels if plan.baseline_s is None)
        self.trials_left = event.trials_left

    def _turn_to(self, kernel_id: str, doing: str) -> None:
        self.current = self.kernels[kernel_id]
        self.doing = doing

    def _count(self, event: TrialEnded, seconds: float) -> None:
        kernel = self.kernels[event.kernel_id]
        if event.kind is TrialKind.BASELINE and kernel.baseline_s is None and event.baseline_s is not None:
            self.baselines_left -= 1
        if event.kind is TrialKind.SEARCH:
            kernel.trials += 1
        kernel.baseline_s, kernel.best_s = event.baseline_s, event.best_s
        self.done[event.kind] += 1
        self.states[event.state] += 1
        self._spent[event.kind] += seconds
        self.trials_left = event.trials_left
