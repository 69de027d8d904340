"""Drift: checks during a session whether the device still runs as fast as it did.

A GPU that heats up, or a machine that gets other work, makes later candidates look worse than they are. IREE's tuner
measures a baseline before and after tuning for that reason. Here a baseline is also measured in between, and when its
latency has changed, the trials measured since the last check are measured again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ...database.schema.records import TrialKind
from ...support.enums import TrialState
from ...support.formatting import percent
from ...support.order_statistics import median_interval
from ..ir import Kernel
from .trial import Attempt, Outcome

TOLERANCE = 0.03
"""Relative change of the baseline's latency that is tolerated."""

INTERVAL_S = 20.0
"""Seconds between two checks of the baseline."""

_IDEAL_S = 2e-3
_LONGEST_S = 0.05
"""A baseline near the first latency is measured precisely and quickly; one above the second takes too long to watch."""

_REPEAT_SHARE = 0.2
"""Largest share of a session's time spent on repeats: on a machine that is never idle the search must still go on."""

MeasureAgain = Callable[[Kernel, Attempt], Outcome]
"""Measures an attempt and commits it as a trial."""

StoredBaseline = Callable[[], "tuple[Kernel, Attempt] | None"]
"""Returns a baseline of an earlier session."""


@dataclass(frozen=True)
class Drift:
    """A change of the device's speed: the baseline of ``kernel`` takes ``ratio`` times as long as before.

    ``affected`` is the number of trials since the last check without drift; they are measured again.
    """

    kernel: Kernel
    ratio: float
    affected: int

    def __str__(self) -> str:
        sign = "+" if self.ratio >= 1 else "−"
        return (
            f"drift: {self.kernel.name} takes {sign}{percent(abs(self.ratio - 1))}; "
            f"{self.affected} trials to be measured again"
        )


@dataclass(frozen=True)
class _Measured:
    """A trial that ended `ok`."""

    kernel: Kernel
    attempt: Attempt
    latency_s: float


class DriftWatch:
    """Watches the speed of one device through one session by measuring one baseline again and again.

    Args:
        measure: measures an attempt again.
        stored_baseline: asked for a baseline to watch while the session has measured none.
        clock: gives seconds; for tests.

    Attributes:
        drifts: all changes so far.
    """

    def __init__(
        self, measure: MeasureAgain, stored_baseline: StoredBaseline, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._measure = measure
        self._stored_baseline = stored_baseline
        self._clock = clock
        self._started = self._checked = clock()
        self._watched: tuple[Kernel, Attempt] | None = None
        self._expected: Outcome | None = None
        self._since_check: list[_Measured] = []
        self._to_repeat: list[_Measured] = []
        self._repeats_s = 0.0
        self.drifts: list[Drift] = []

    def record(self, kernel: Kernel, attempt: Attempt, outcome: Outcome) -> None:
        """Take note of a trial of the session; a baseline of suitable latency becomes the watched one."""
        if outcome.state is not TrialState.OK or outcome.latency_s is None:
            return
        self._since_check.append(_Measured(kernel, attempt, outcome.latency_s))
        current = suitability(self._expected.latency_s or 0.0) if self._expected is not None else 0.0
        # A change of the watched baseline loses the history of the old one, so the new one must be much better.
        if attempt.kind is TrialKind.BASELINE and suitability(outcome.latency_s) > 2 * current:
            self._watched, self._expected = (kernel, attempt), outcome

    def check(self) -> Drift | None:
        """Measure the baseline if a check is due, and repeat affected trials as far as their share of time allows.

        Returns the drift if the check found one.
        """
        drift = None
        if self._clock() - self._checked >= INTERVAL_S:
            if self._watched is not None:
                drift = self._compare()
            else:
                self._watch_stored_baseline()
            self._since_check.clear()
            self._checked = self._clock()
        self._repeat()
        return drift

    def notes(self) -> list[str]:
        """Return one line per drift, and one for repeats that there was no time for."""
        left = [f"drift: {len(self._to_repeat)} of these trials were not measured again, for lack of time"]
        return [*map(str, self.drifts), *(left if self._to_repeat else [])]

    def _watch_stored_baseline(self) -> None:
        """Watch a baseline of an earlier session; its present latency is what later checks expect."""
        stored = self._stored_baseline()
        if stored is not None:
            outcome = self._measure_check(*stored)
            if outcome.state is TrialState.OK:
                self._watched, self._expected = stored, outcome

    def _compare(self) -> Drift | None:
        """Compare the watched baseline with its expected latency; on drift, add the trials since to the repeats."""
        assert self._watched is not None and self._expected is not None
        now = self._measure_check(*self._watched)
        ratio = _significant_ratio(self._expected, now)
        if ratio is not None:
            # A single slow measurement may be an accident: only a change that is seen twice is a drift.
            now = self._measure_check(*self._watched)
            ratio = _significant_ratio(self._expected, now)
        if ratio is None:
            return None
        self._expected = now
        affected = {(one.kernel.id, one.attempt.trace): one for one in [*self._to_repeat, *self._since_check]}
        drift = Drift(self._watched[0], ratio, len(self._since_check))
        self._to_repeat = _by_importance(affected.values())
        self.drifts.append(drift)
        return drift

    def _measure_check(self, kernel: Kernel, attempt: Attempt) -> Outcome:
        return self._measure(kernel, replace(attempt, kind=TrialKind.CHECK, repeat=False))

    def _repeat(self) -> None:
        """Measure affected trials again while repeats have taken no more than their share of the session's time."""
        while self._to_repeat and self._repeats_s <= _REPEAT_SHARE * ((began := self._clock()) - self._started):
            affected = self._to_repeat.pop(0)
            outcome = self._measure(affected.kernel, replace(affected.attempt, repeat=True))
            if outcome.latency_s is not None:
                self._since_check.append(replace(affected, latency_s=outcome.latency_s))
            self._repeats_s += self._clock() - began


def suitability(latency_s: float) -> float:
    """Return how well a baseline of this latency can be watched: 1 at best, 0 if measuring it takes too long."""
    if not 0 < latency_s <= _LONGEST_S:
        return 0.0
    return min(latency_s / _IDEAL_S, _IDEAL_S / latency_s)


def _significant_ratio(before: Outcome, now: Outcome) -> float | None:
    """Return ``now``'s latency over ``before``'s; None if it is unknown, or explained by tolerance or noise."""
    if now.state is not TrialState.OK or not before.latency_s or now.latency_s is None:
        return None
    ratio = now.latency_s / before.latency_s
    old, new = median_interval(before.samples_s), median_interval(now.samples_s)
    within_noise = old is not None and new is not None and old.overlaps(new)
    return None if abs(ratio - 1) <= TOLERANCE or within_noise else ratio


def _by_importance(trials: Iterable[_Measured]) -> list[_Measured]:
    """Sort baselines first, because everything is compared with them; then by latency over the kernel's fastest."""
    measured = list(trials)
    fastest: dict[str, float] = {}
    for one in measured:
        fastest[one.kernel.id] = min(one.latency_s, fastest.get(one.kernel.id, one.latency_s))
    return sorted(
        measured,
        key=lambda one: (one.attempt.kind is not TrialKind.BASELINE, one.latency_s / fastest[one.kernel.id]),
    )
