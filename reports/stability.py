"""Stability: whether schedules that are measured again keep their times and their order."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.text import Text

from ..database.comparisons import Remeasured, remeasured
from ..database.reader import Reader
from ..database.records import SessionRecord
from ..devices.job import Sampling
from ..errors import UsageError
from ..medians import median_error, median_interval
from ..states import Runtime
from ..units import MISSING, duration, percent
from .launches import model_launches
from .plain import plain
from .provenance import SOFTWARE_WARNING, Provenance, provenance
from .tables import Column, print_left_out, print_rows

AIM = 0.9
"""Kendall's tau that a quiet machine reaches, ties counted as in `Agreement`."""


_PRECISION = Sampling().precision


@dataclass(frozen=True)
class Agreement:
    """How far two orders of the same schedules agree, pair by pair.

    ``tau`` is Kendall's tau-b over the medians, where two that differ by no more than the precision that sampling aims
    at are tied; ``untied_tau`` takes them as they are. Both are None of fewer than two schedules, and where everything
    is tied. ``clear`` counts the pairs that noise cannot have put in their order, in either measurement: their medians'
    confidence intervals do not overlap, and the medians are not tied, since samples of one trial do not show what
    changes from one trial to the next. ``kept`` of the clear pairs are in the same order both times.
    """

    pairs: int
    tau: float | None
    untied_tau: float | None
    clear: int
    kept: int

    @property
    def clear_tau(self) -> float | None:
        """The same measure over the clear pairs alone (Goodman and Kruskal's gamma); None where there are none."""
        return (2 * self.kept - self.clear) / self.clear if self.clear else None


@dataclass(frozen=True)
class StabilityRow:
    """One kernel's schedules, the fastest first.

    ``change`` is the median of ``|after / before − 1|`` over them, ``largest_change`` the largest. ``error`` is how far
    the ends of the medians' confidence intervals lie from the medians, the median over all measurements.
    """

    name: str
    workload_id: str
    before_s: tuple[float, ...]
    after_s: tuple[float, ...]
    agreement: Agreement
    change: float
    largest_change: float
    error: float | None


@dataclass(frozen=True)
class StabilityReport:
    """One session's checks: per kernel, and over all; the kernels with the most time first."""

    model: str
    session: SessionRecord
    provenance: Provenance
    rows: list[StabilityRow]
    overall: Agreement
    change: float
    largest_change: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; times in seconds, changes of one."""
        data = {
            "report": "stability",
            "model": self.model,
            "session": self.session.session_id,
            "started": self.session.started,
            "outcome": self.session.outcome,
            "cache": self.session.info.cache,
            "provenance": self.provenance,
            "overall": _with_clear_tau(self.overall),
            "change": self.change,
            "largest_change": self.largest_change,
            "kernels": [{**plain(row), "agreement": _with_clear_tau(row.agreement)} for row in self.rows],
        }
        result: dict[str, Any] = plain(data)
        return result

    def sentences(self) -> list[str]:
        """What it comes to, in words."""
        overall = self.overall
        lines = []
        if overall.tau is not None:
            if overall.tau >= AIM:
                verdict = "as a quiet machine does"
            elif self._too_close:
                verdict = "not because times moved: most of these schedules are too close together to be told apart"
            else:
                verdict = f"a quiet machine reaches {AIM}"
            untied = "" if overall.untied_tau is None else f" {overall.untied_tau:.2f} with all taken as they are."
            lines.append(
                f"Kendall's tau over all, times within {percent(_PRECISION)} of each other being tied: "
                f"{overall.tau:.2f} ({verdict});{untied}"
            )
        if overall.clear_tau is not None:
            lines.append(
                f"{overall.clear} of {overall.pairs} pairs differ by more than their noise, both times; {overall.kept} "
                f"of these kept their order: tau {overall.clear_tau:.2f}."
            )
        elif overall.pairs:
            lines.append(f"None of {overall.pairs} pairs differs by more than its noise, both times.")
        lines.append(
            f"A time changed by {percent(self.change)} (median), {percent(self.largest_change)} at most; caches were "
            f"{self.session.info.cache.value}."
        )
        if overall.tau is not None and overall.tau < AIM and not self._too_close:
            lines.append("End other programs, let the machine cool down, and measure again.")
        return lines

    @property
    def _too_close(self) -> bool:
        """Whether what can be told apart did keep its order."""
        clear_tau = self.overall.clear_tau
        return clear_tau is not None and clear_tau >= AIM

    def render(self, console: Console, limit: int | None = None) -> None:
        """Prints the table and what it comes to."""
        rows = [
            {
                "name": row.name,
                "schedules": len(row.before_s),
                "before": row.before_s[0],
                "after": row.after_s[0],
                "tau": row.agreement.tau,
                "clear": f"{row.agreement.kept} of {row.agreement.clear}",
                "change": row.change,
                "largest": row.largest_change,
                "error": row.error,
            }
            for row in self.rows[:limit]
        ]
        device = self.provenance.device
        title = f"{self.model} on {device.key}: session {self.session.session_id}, {self.session.outcome.value}"
        print_rows(rows, _COLUMNS, json=False, console=console, title=title)
        print_left_out(len(self.rows), len(rows), console)
        for line in self.sentences():
            console.print(Text(line), soft_wrap=not console.is_terminal)
        if device.software:
            console.print(Text(SOFTWARE_WARNING, style="yellow"), soft_wrap=not console.is_terminal)


def heaviest(
    store: Reader, capture_key: str, device_key: str, steps: int, count: int, runtime: Runtime = Runtime.WGPU
) -> list[str]:
    """The ids of the ``count`` kernels that take most of an image's time on a device, of those that have a record.

    Raises UsageError where the database has no such model.
    """
    launches = model_launches(store, capture_key, steps)
    best = store.best(device_key, launches.workload_ids, runtime)
    seconds = {
        kernel.workload.id: kernel.total * best[kernel.workload.id].latency_s
        for kernel in launches.kernels
        if kernel.workload.id in best
    }
    return sorted(seconds, key=lambda identity: -seconds[identity])[:count]


def stability(store: Reader, session_id: int) -> StabilityReport:
    """What a session's checks say.

    Raises:
        UsageError: there is no such session, or nothing was measured again in it.
    """
    session = next((kept for kept in store.sessions() if kept.session_id == session_id), None)
    pairs = remeasured(store, session_id) if session is not None else []
    if session is None or not pairs:
        raise UsageError(f"session {session_id} of {store.name} measured nothing again", "wgtune report stability")
    by_kernel: dict[str, list[Remeasured]] = {}
    for pair in pairs:
        by_kernel.setdefault(pair.before.workload_id, []).append(pair)
    workloads = store.workloads(by_kernel)
    rows = [_row(workloads[identity].name, identity, found) for identity, found in by_kernel.items()]
    rows.sort(key=lambda row: -sum(row.before_s))
    changes = [_change(pair) for pair in pairs]
    return StabilityReport(
        model=session.info.model,
        session=session,
        provenance=provenance(store, session.info.device.key, session.info.runtime, [pair.after for pair in pairs]),
        rows=rows,
        overall=_pooled([row.agreement for row in rows]),
        change=statistics.median(changes),
        largest_change=max(changes),
    )


def agreement(pairs: Sequence[Remeasured]) -> Agreement:
    """How far two measurements of one kernel's schedules agree."""
    medians = [(pair.before.latency_s, pair.after.latency_s) for pair in pairs]
    clear = kept = 0
    for one, other in combinations(pairs, 2):
        signs = _order(one.before.samples_s, other.before.samples_s), _order(one.after.samples_s, other.after.samples_s)
        if all(signs):
            clear += 1
            kept += signs[0] == signs[1]
    count = len(pairs) * (len(pairs) - 1) // 2
    return Agreement(count, kendall_tau(medians, _PRECISION), kendall_tau(medians, 0.0), clear, kept)


def kendall_tau(times: Sequence[tuple[float, float]], precision: float) -> float | None:
    """Kendall's tau-b of pairs of times, where two times are tied that differ by no more than ``precision`` of either.

    The formula is M. G. Kendall's, "The treatment of ties in ranking problems", Biometrika 33, 1945. None where one of
    the two orders ties everything.
    """
    agreed = ordered_first = ordered_second = 0
    for (one, one_again), (other, other_again) in combinations(times, 2):
        first, second = _compared(one, other, precision), _compared(one_again, other_again, precision)
        agreed += first * second
        ordered_first += first != 0
        ordered_second += second != 0
    return agreed / math.sqrt(ordered_first * ordered_second) if ordered_first and ordered_second else None


def _compared(one: float, other: float, precision: float) -> int:
    if max(one, other) <= min(one, other) * (1 + precision):
        return 0
    return -1 if one < other else 1


def _order(one: Sequence[float], other: Sequence[float]) -> int:
    """−1 where the first is surely shorter, 1 where it is surely longer, 0 where noise may decide."""
    first, second = median_interval(one), median_interval(other)
    if first is None or second is None or first.overlaps(second):
        return 0
    shorter, longer = sorted((statistics.median(one), statistics.median(other)))
    if longer <= shorter * (1 + _PRECISION):
        return 0
    return -1 if first.high < second.low else 1


def _pooled(parts: Sequence[Agreement]) -> Agreement:
    """Over all kernels: each tau weighted by pairs. Schedules of different kernels are never compared."""
    return Agreement(
        sum(part.pairs for part in parts),
        _weighted([(part.tau, part.pairs) for part in parts]),
        _weighted([(part.untied_tau, part.pairs) for part in parts]),
        sum(part.clear for part in parts),
        sum(part.kept for part in parts),
    )


def _weighted(values: Sequence[tuple[float | None, int]]) -> float | None:
    """The mean of the values that there are, by weight."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _row(name: str, identity: str, pairs: list[Remeasured]) -> StabilityRow:
    ranked = sorted(pairs, key=lambda pair: pair.before.latency_s)
    changes = [_change(pair) for pair in ranked]
    errors = [median_error(record.samples_s) for pair in ranked for record in (pair.before, pair.after)]
    known = [error for error in errors if math.isfinite(error)]
    return StabilityRow(
        name=name,
        workload_id=identity,
        before_s=tuple(pair.before.latency_s for pair in ranked),
        after_s=tuple(pair.after.latency_s for pair in ranked),
        agreement=agreement(ranked),
        change=statistics.median(changes),
        largest_change=max(changes),
        error=statistics.median(known) if known else None,
    )


def _change(pair: Remeasured) -> float:
    return abs(pair.after.latency_s / pair.before.latency_s - 1)


def _with_clear_tau(found: Agreement) -> dict[str, Any]:
    return {**plain(found), "clear_tau": found.clear_tau}


def _tau(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


_COLUMNS = [
    Column("name", "kernel", flexible=True),
    Column("schedules", "schedules", "right", drop=3),
    Column("before", "best before", "right", duration),
    Column("after", "now", "right", duration),
    Column("tau", "tau", "right", _tau),
    Column("clear", "clear pairs kept", "right", drop=2),
    Column("change", "change", "right", percent),
    Column("largest", "largest", "right", percent, drop=1),
    Column("error", "±", "right", percent, drop=4),
]
