"""Progress of a search: the best time so far against trials, for one kernel and for many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..database.queries.search_history import SearchTrial
from ..database.schema.records import TrialKind
from ..support.formatting import ratio
from ..tuner.kernel_names import KernelClass


class Step(NamedTuple):
    """After ``trials`` trials the best verified time so far was ``best_s`` seconds."""

    trials: int
    best_s: float


@dataclass(frozen=True)
class Progress:
    """The search for one kernel's schedule, by sessions that all began cold or all began warm.

    ``trials`` counts transfers, search trials and failures; baselines come before trial 1 or between trials, and
    count as none. ``steps`` are those that lowered the best time. ``left_out`` counts the trials of later sessions of
    the other kind: they began with what these had found, so that they are no search of their own.
    """

    warm: bool
    trials: int
    steps: tuple[Step, ...]
    left_out: int = 0

    def at(self, trials: int) -> float | None:
        """Return the best time after so many trials, in seconds; before the first time, that one. None without any."""
        known = [step.best_s for step in self.steps if step.trials <= trials]
        return known[-1] if known else self.steps[0].best_s if self.steps else None

    def until(self, seconds: float) -> int | None:
        """Return the number of trials after which the best time was ``seconds`` or less; None where it never was."""
        return next((step.trials for step in self.steps if step.best_s <= seconds), None)


def progress(history: Sequence[SearchTrial], warm_sessions: Collection[int]) -> Progress:
    """Return the progress that a kernel's trials made; ``history`` is in order, and not empty.

    Times of zero, which a timer's steps may give, are none. Whether it is cold or warm, the first session that made
    more than a baseline decides.
    """
    first = next((one for one in history if one.kind is not TrialKind.BASELINE), history[0])
    warm = first.session_id in warm_sessions
    trials = 0
    steps: list[Step] = []
    for at, one in enumerate(history):
        if one.kind is not TrialKind.BASELINE:
            if (one.session_id in warm_sessions) is not warm:
                left = sum(other.kind is not TrialKind.BASELINE for other in history[at:])
                return Progress(warm, trials, tuple(steps), left)
            trials += 1
        if one.latency_s and (not steps or one.latency_s < steps[-1].best_s):
            steps.append(Step(trials, one.latency_s))
    return Progress(warm, trials, tuple(steps))


@dataclass(frozen=True)
class KernelSearch:
    """One kernel's search beside the best known time, ``best_s``, whoever found it."""

    name: str
    workload_id: str
    kind: KernelClass
    progress: Progress
    best_s: float

    def speed(self, trials: int) -> float:
        """Return the speed after so many trials, as a part of the best known."""
        seconds = self.progress.at(trials)
        assert seconds is not None, "only kernels with a verified time are compared"
        return self.best_s / seconds

    def needed(self, share: float) -> Needed:
        """Return the trials until ``share`` of the best known speed; at least all trials where it was not reached."""
        found = self.progress.until(self.best_s / share)
        return Needed(self.progress.trials, True) if found is None else Needed(found, False)


class Needed(NamedTuple):
    """A number of trials, or a mean of such; ``at_least`` where some searches ended before they got there."""

    trials: float
    at_least: bool

    def __str__(self) -> str:
        number = f"{self.trials:,.1f}".removesuffix(".0")
        return f"≥ {number}" if self.at_least else number


def median_needed(values: Sequence[Needed]) -> Needed:
    """Return the median; at least that, where a search that ended too early may lie beyond it."""
    ordered = sorted(values)
    upper = ordered[len(ordered) // 2].trials
    beyond = any(one.at_least and one.trials <= upper for one in ordered)
    return Needed(statistics.median(one.trials for one in ordered), beyond)


def mean_needed(values: Sequence[Needed]) -> Needed:
    """Return the geometric mean; what needed no trial counts as one."""
    logs = [math.log(max(1.0, one.trials)) for one in values]
    return Needed(math.exp(statistics.fmean(logs)), any(one.at_least for one in values))


class CurvePoint(NamedTuple):
    """The geometric mean of the speeds after so many trials; ``kernels`` had that many, the others their last speed."""

    trials: int
    speed: float
    kernels: int


def mean_curve(searches: Sequence[KernelSearch]) -> list[CurvePoint]:
    """Return the curve of several searches at 0, 1, 2, 4, 8, … trials and at the end of the longest."""
    longest = max(one.progress.trials for one in searches)
    return [
        CurvePoint(
            trials,
            math.exp(statistics.fmean(math.log(one.speed(trials)) for one in searches)),
            sum(one.progress.trials >= trials for one in searches),
        )
        for trials in marks(longest)
    ]


def marks(longest: int) -> list[int]:
    """Return 0, the powers of two below ``longest``, and ``longest`` itself."""
    powers = [1 << power for power in range(longest.bit_length()) if 1 << power < longest]
    return [*dict.fromkeys([0, *powers, longest])]


@dataclass(frozen=True)
class ClassRow:
    """One class of kernels, or all, on one side.

    ``median`` and ``mean`` (geometric) are trials until the report's share of the best known speed, over the kernels;
    ``missed`` of them did not reach it, and count with all the trials that they had.
    """

    name: str
    side: str
    kernels: int
    curve: list[CurvePoint]
    median: Needed
    mean: Needed
    missed: int


def class_row(name: str, side: str, searches: Sequence[KernelSearch], share: float) -> ClassRow:
    """Return the row of a class with these searches, of which there must be one at least."""
    needed = [one.needed(share) for one in searches]
    missed = sum(one.at_least for one in needed)
    return ClassRow(name, side, len(searches), mean_curve(searches), median_needed(needed), mean_needed(needed), missed)


@dataclass(frozen=True)
class Comparison:
    """The trials of the second side by those of the first, over the kernels that both searched.

    ``ratio`` is the geometric mean over the kernels, one that needed no trial counting as one; ``total_ratio`` that of
    the sums, None where the first needed none. Kernels that missed the share count with all their trials, so that the
    true ratio is smaller where only the first missed some, larger where only the second did.
    """

    name: str
    kernels: int
    ratio: float
    total_ratio: float | None
    first_missed: int
    second_missed: int

    @property
    def bound(self) -> str:
        """How the true ratio lies to this one: ``≤`` or ``≥`` it, ``≈`` where nothing is sure, empty where it is it."""
        return {(False, False): "", (True, False): "≤", (False, True): "≥", (True, True): "≈"}[
            bool(self.first_missed), bool(self.second_missed)
        ]

    @property
    def shown(self) -> str:
        """The ratio of trials with its bound, as text."""
        return f"{self.bound} {ratio(self.ratio)}".strip()


def compared(name: str, pairs: Sequence[tuple[KernelSearch, KernelSearch]], share: float) -> Comparison:
    """Return the comparison of searches for the same kernels, first and second, of which there must be one at least."""
    needed = [(one.needed(share), other.needed(share)) for one, other in pairs]
    logs = [math.log(max(1.0, other.trials) / max(1.0, one.trials)) for one, other in needed]
    total = sum(one.trials for one, _ in needed)
    return Comparison(
        name=name,
        kernels=len(pairs),
        ratio=math.exp(statistics.fmean(logs)),
        total_ratio=sum(other.trials for _, other in needed) / total if total else None,
        first_missed=sum(one.at_least for one, _ in needed),
        second_missed=sum(other.at_least for _, other in needed),
    )
