"""Agreement of two orders of schedules measured in rounds: Kendall's tau with ties, noise and confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, zip_longest

from ..database.schema.records import Record
from ..devices.measure.job import Sampling
from ..support.order_statistics import median_error, median_interval

_AIM = Sampling().precision
"""What sampling aims at: the precision that a measurement in one process claims."""


@dataclass(frozen=True)
class Times:
    """One kernel's schedules, each measured once in every round: ``records`` by schedule and round, None for a failure.

    What holds in one round need not in the next: the machine is faster or slower then, and where a process has put a
    program's code and data in memory is a matter of luck. The former concerns all schedules of a round alike, so each
    time is taken as a part of its round's median first; the latter is what the median over the rounds is for.
    """

    records: tuple[tuple[Record | None, ...], ...]

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return max(map(len, self.records))

    def halves(self) -> tuple[Times, Times] | None:
        """Every other round, and the rest; None where a schedule has no time in one of these halves."""
        halves = tuple(Times(tuple(made[first::2] for made in self.records)) for first in (0, 1))
        if any(not any(made) for half in halves for made in half.records):
            return None
        return halves[0], halves[1]

    @cached_property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of each schedule; of one without a time in a round that counts, the median of the times it has.

        A round counts if at least half of the schedules have a time in it. Raises ValueError where a schedule has none.
        """
        known = [level for level in self._levels if level is not None]
        level = statistics.median(known) if known else 0.0
        return tuple(self._seconds(schedule, level) for schedule in range(len(self.records)))

    @cached_property
    def errors(self) -> tuple[float, ...]:
        """How far the ends of each median's 95 % confidence interval lie from it; infinite where too little is known.

        It is the interval over the rounds where there are enough of them, else over the samples of all.
        """
        return tuple(
            error if math.isfinite(error) else median_error(self._samples(schedule))
            for schedule, error in enumerate(self._round_errors)
        )

    @cached_property
    def precision(self) -> float:
        """Times that differ by no more, as a part of themselves, are tied.

        It is what sampling aims at, or less where rounds show times to be known better: the median of their intervals.
        """
        return min(_AIM, statistics.median(self._round_errors))

    def order(self, one: int, other: int) -> int:
        """−1 where schedule ``one`` is surely faster than ``other``, 1 where surely slower, 0 where noise decides.

        Six rounds or more are compared one by one: the interval of the median ratio must not hold 1. Of fewer the
        samples' intervals must not overlap, nor the medians be tied, since the samples of one process do not show what
        changes from one to the next.
        """
        ratios = [
            first.latency_s / second.latency_s
            for first, second in zip(self.records[one], self.records[other], strict=False)
            if first is not None and second is not None
        ]
        interval = median_interval(ratios)
        if interval is not None:
            return -1 if interval.high < 1 else 1 if interval.low > 1 else 0
        samples = self._samples(one), self._samples(other)
        first, second = median_interval(samples[0]), median_interval(samples[1])
        if first is None or second is None or first.overlaps(second):
            return 0
        if compared(statistics.median(samples[0]), statistics.median(samples[1]), _AIM) == 0:
            return 0
        return -1 if first.high < second.low else 1

    @cached_property
    def _levels(self) -> list[float | None]:
        """Return the median of each round that counts."""
        levels: list[float | None] = []
        for made in zip_longest(*self.records):
            times = [record.latency_s for record in made if record is not None]
            levels.append(statistics.median(times) if 2 * len(times) >= len(made) else None)
        return levels

    @cached_property
    def _round_errors(self) -> list[float]:
        """Return, by schedule, the median's error over the rounds; infinite where they are too few."""
        return [median_error(self._parts(schedule)) for schedule in range(len(self.records))]

    def _seconds(self, schedule: int, level: float) -> float:
        parts = self._parts(schedule)
        if parts:
            return level * statistics.median(parts)
        return statistics.median(record.latency_s for record in self.records[schedule] if record is not None)

    def _parts(self, schedule: int) -> list[float]:
        return [
            record.latency_s / level
            for record, level in zip(self.records[schedule], self._levels, strict=False)
            if record is not None and level is not None
        ]

    def _samples(self, schedule: int) -> list[float]:
        return [sample for record in self.records[schedule] if record is not None for sample in record.samples_s]


def digests(made: Iterable[Record | None]) -> set[str]:
    """Return the digests of the programs that one schedule's measurements ran."""
    return {record.program_digest for record in made if record is not None}


@dataclass(frozen=True)
class Agreement:
    """How far two orders of the same schedules agree, pair by pair.

    ``tau`` is Kendall's tau-b over the times, where two that differ by no more than ``precision``, a part of
    themselves, are tied; ``untied_tau`` takes them as they are. Both are None of fewer than two schedules, and where
    everything is tied. ``clear`` counts the pairs that noise cannot have put in their order, in either measurement, as
    `Times.order` tells; ``kept`` of these are in the same order both times.
    """

    pairs: int
    tau: float | None
    untied_tau: float | None
    clear: int
    kept: int
    precision: float

    @property
    def clear_tau(self) -> float | None:
        """The same measure over the clear pairs alone (Goodman and Kruskal's gamma); None where there are none."""
        return (2 * self.kept - self.clear) / self.clear if self.clear else None


def agreement(before: Times, after: Times) -> Agreement:
    """Return how far two measurements of one kernel's schedules agree, which are in the same order in both."""
    times = list(zip(before.seconds, after.seconds, strict=True))
    clear = kept = 0
    for one, other in combinations(range(len(times)), 2):
        signs = before.order(one, other), after.order(one, other)
        if all(signs):
            clear += 1
            kept += signs[0] == signs[1]
    precision = max(before.precision, after.precision)
    tau, untied = kendall_tau(times, precision), kendall_tau(times, 0.0)
    return Agreement(math.comb(len(times), 2), tau, untied, clear, kept, precision)


def pooled(parts: Sequence[Agreement]) -> Agreement:
    """Return the agreement over several kernels: each tau weighted by pairs, the median precision.

    Schedules of different kernels are never compared.
    """
    return Agreement(
        sum(part.pairs for part in parts),
        _weighted([(part.tau, part.pairs) for part in parts]),
        _weighted([(part.untied_tau, part.pairs) for part in parts]),
        sum(part.clear for part in parts),
        sum(part.kept for part in parts),
        statistics.median(part.precision for part in parts) if parts else 0.0,
    )


def kendall_tau(times: Sequence[tuple[float, float]], precision: float) -> float | None:
    """Return Kendall's tau-b of pairs of times; times that differ by at most ``precision`` of either are tied.

    The formula is M. G. Kendall's, "The treatment of ties in ranking problems", Biometrika 33, 1945. None where one of
    the two orders ties everything.
    """
    agreed = ordered_first = ordered_second = 0
    for (one, one_again), (other, other_again) in combinations(times, 2):
        first, second = compared(one, other, precision), compared(one_again, other_again, precision)
        agreed += first * second
        ordered_first += first != 0
        ordered_second += second != 0
    return agreed / math.sqrt(ordered_first * ordered_second) if ordered_first and ordered_second else None


def compared(one: float, other: float, precision: float) -> int:
    """−1 where ``one`` is less than ``other`` by more than ``precision`` of itself, 1 the other way round, else 0."""
    if one * (1 + precision) < other:
        return -1
    return 1 if other * (1 + precision) < one else 0


def _weighted(values: Sequence[tuple[float | None, int]]) -> float | None:
    """Return the weighted mean of the values that are not None."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None
