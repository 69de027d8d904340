"""Whether the device still runs as fast as it did: one baseline is measured again and again through a session.

A GPU that grows hot, or a machine that gets other work, makes later candidates look worse than they are. IREE's tuner
measures a baseline before and after for that reason. Here it is measured in between as well, and where it moved, what
was measured meanwhile is measured again.
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
"""The most that the baseline may move without consequences."""

INTERVAL_S = 20.0
"""Seconds between two looks at the baseline."""

_WANTED_S = 2e-3
_LONGEST_S = 0.05
"""A baseline near the first is measured precisely and soon; one beyond the second costs too much to be watched."""

_MOST_TIME = 0.2
"""The share of a session's time that repeats may take: a machine that never rests must not keep it from searching."""

Measure = Callable[[Kernel, Attempt], Outcome]
"""Makes a trial of it, booked, with all that follows from it."""

Recall = Callable[[], "tuple[Kernel, Attempt] | None"]
"""A baseline that earlier sessions know."""


@dataclass(frozen=True)
class Moved:
    """The baseline of ``kernel`` took ``ratio`` times what it had taken before.

    The ``affected`` trials are those since the last look that found nothing: they are to be measured again.
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
class _Seen:
    kernel: Kernel
    attempt: Attempt
    latency_s: float


class DriftWatch:
    """Watches one device through one session.

    Args:
        measure: makes a trial.
        recall: asked for a baseline to watch where the session has measured none.
        clock: seconds, for tests.
    """

    def __init__(self, measure: Measure, recall: Recall, clock: Callable[[], float] = time.monotonic) -> None:
        self._measure = measure
        self._recall = recall
        self._clock = clock
        self._began = self._looked = clock()
        self._sentinel: tuple[Kernel, Attempt] | None = None
        self._level: Outcome | None = None
        self._meanwhile: list[_Seen] = []
        self._due: list[_Seen] = []
        self._spent_s = 0.0
        self.moved: list[Moved] = []

    def saw(self, kernel: Kernel, attempt: Attempt, outcome: Outcome) -> None:
        """Takes note of a trial of the session; a baseline of a good length becomes the one that is watched."""
        if outcome.state is not TrialState.OK or outcome.latency_s is None:
            return
        self._meanwhile.append(_Seen(kernel, attempt, outcome.latency_s))
        known = suitability(self._level.latency_s or 0.0) if self._level is not None else 0.0
        # Changing from one to another would forget what the first has shown: only for one that is much better.
        if attempt.kind is TrialKind.BASELINE and suitability(outcome.latency_s) > 2 * known:
            self._sentinel, self._level = (kernel, attempt), outcome

    def look(self) -> Moved | None:
        """Measures the baseline again where it is time to, and what it makes doubtful; says so where it moved."""
        found = None
        if self._clock() - self._looked >= INTERVAL_S:
            if self._sentinel is not None:
                found = self._compare()
            else:
                self._begin()
            self._meanwhile.clear()
            self._looked = self._clock()
        self._repeat()
        return found

    def notes(self) -> list[str]:
        """What to keep of it with the session."""
        left = [f"drift: {len(self._due)} of these trials were not measured again, for lack of time"]
        return [*map(str, self.moved), *(left if self._due else [])]

    def _begin(self) -> None:
        """Takes a baseline of an earlier session to watch, as fast as it is now."""
        recalled = self._recall()
        if recalled is not None:
            outcome = self._check(*recalled)
            if outcome.state is TrialState.OK:
                self._sentinel, self._level = recalled, outcome

    def _compare(self) -> Moved | None:
        assert self._sentinel is not None and self._level is not None
        now = self._check(*self._sentinel)
        moved = _ratio(self._level, now)
        if moved is not None:
            # One look may fall on a hiccup: only what lasts is a drift.
            now = self._check(*self._sentinel)
            moved = _ratio(self._level, now)
        if moved is None:
            return None
        self._level = now
        due = {(seen.kernel.id, seen.attempt.trace): seen for seen in [*self._due, *self._meanwhile]}
        found = Moved(self._sentinel[0], moved, len(self._meanwhile))
        self._due = _by_weight(due.values())
        self.moved.append(found)
        return found

    def _check(self, kernel: Kernel, attempt: Attempt) -> Outcome:
        return self._measure(kernel, replace(attempt, kind=TrialKind.CHECK, repeat=False))

    def _repeat(self) -> None:
        """Measures again what is due, as far as the time for it goes; the rest when there is more."""
        while self._due and self._spent_s <= _MOST_TIME * ((began := self._clock()) - self._began):
            seen = self._due.pop(0)
            outcome = self._measure(seen.kernel, replace(seen.attempt, repeat=True))
            if outcome.latency_s is not None:
                self._meanwhile.append(replace(seen, latency_s=outcome.latency_s))
            self._spent_s += self._clock() - began


def suitability(latency_s: float) -> float:
    """How good a baseline of this latency is to be watched: 1 at best, 0 where measuring it would take too long."""
    if not 0 < latency_s <= _LONGEST_S:
        return 0.0
    return min(latency_s / _WANTED_S, _WANTED_S / latency_s)


def _ratio(before: Outcome, now: Outcome) -> float | None:
    """How many times longer it takes now; None where that is within tolerance or noise, or not known."""
    if now.state is not TrialState.OK or not before.latency_s or now.latency_s is None:
        return None
    ratio = now.latency_s / before.latency_s
    old, new = median_interval(before.samples_s), median_interval(now.samples_s)
    within_noise = old is not None and new is not None and old.overlaps(new)
    return None if abs(ratio - 1) <= TOLERANCE or within_noise else ratio


def _by_weight(trials: Iterable[_Seen]) -> list[_Seen]:
    """Baselines first, which everything is compared with; then by how near a trial came to its kernel's fastest."""
    found = list(trials)
    fastest: dict[str, float] = {}
    for seen in found:
        fastest[seen.kernel.id] = min(seen.latency_s, fastest.get(seen.kernel.id, seen.latency_s))
    return sorted(
        found,
        key=lambda seen: (seen.attempt.kind is not TrialKind.BASELINE, seen.latency_s / fastest[seen.kernel.id]),
    )
