"""Stability report: whether schedules that are measured again keep their times and their order."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ..database.queries.remeasured import REASON, Remeasured, remeasured
from ..database.reader import Reader
from ..database.schema.records import Record, SessionRecord
from ..database.sql_reader import SqlReader
from ..support.enums import Runtime
from ..support.errors import UsageError
from ..support.formatting import coefficient, duration, percent
from ..support.serialization import plain
from .launch_counts import model_launches
from .provenance import SOFTWARE_WARNING, Provenance, provenance
from .rank_agreement import Agreement, Times, agreement, digests, pooled
from .tables import Column, print_left_out, print_rows

AIM = 0.9
"""Kendall's tau that a quiet machine reaches, ties counted as in `Agreement`."""


@dataclass(frozen=True)
class StabilityRow:
    """One kernel's schedules, the fastest first.

    ``change`` is the median of ``|after / before − 1|`` over them, ``largest_change`` the largest. ``error`` is how far
    the ends of the times' confidence intervals lie from them, the median over all, before and after.
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
    """One session's checks: per kernel, and over all; the kernels with the most time first.

    They are compared with the checks of session ``against``, or with the records where that is None. ``halves`` is the
    agreement of every other of the session's own ``rounds`` with the rest; None of a single round. ``other_programs``
    counts the schedules whose program changed between the two measurements: their times are compared all the same.
    """

    model: str
    session: SessionRecord
    against: int | None
    provenance: Provenance
    rows: list[StabilityRow]
    rounds: int
    overall: Agreement
    halves: Agreement | None
    change: float
    largest_change: float
    other_programs: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; times in seconds, changes of one."""
        data = {
            "report": "stability",
            "model": self.model,
            "session": self.session.session_id,
            "started": self.session.started,
            "outcome": self.session.outcome,
            "cache": self.session.info.cache,
            "against": self.against,
            "rounds": self.rounds,
            "provenance": self.provenance,
            "overall": _with_clear_tau(self.overall),
            "halves": _with_clear_tau(self.halves) if self.halves is not None else None,
            "change": self.change,
            "largest_change": self.largest_change,
            "other_programs": self.other_programs,
            "kernels": [{**plain(row), "agreement": _with_clear_tau(row.agreement)} for row in self.rows],
        }
        result: dict[str, Any] = plain(data)
        return result

    def sentences(self) -> list[str]:
        """Return the summary as sentences."""
        overall = self.overall
        before = "the records" if self.against is None else f"session {self.against}"
        lines = [
            f"Compared with {before}; measured {self.rounds} times, in a process of its own each time."
            if self.rounds > 1
            else f"Compared with {before}; measured once."
        ]
        if overall.tau is not None:
            if overall.tau >= AIM:
                verdict = "as a quiet machine does"
            elif self.against is None and self.halves is not None and (self.halves.tau or 0.0) >= AIM:
                verdict = "a record comes from one process and does not order them as well as all these rounds do"
            elif self._too_close:
                verdict = (
                    "what can be told apart kept its order; most of these schedules are too close together for that"
                )
            else:
                verdict = f"a quiet machine reaches {AIM}"
            lines.append(f"Kendall's tau {_taus(overall)} ({verdict}).")
        if self.halves is not None and self.halves.tau is not None:
            lines.append(f"Between every other of the rounds and the rest: tau {_taus(self.halves)}.")
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
        if self.other_programs:
            lines.append(
                f"{self.other_programs} of {sum(len(row.before_s) for row in self.rows)} schedules were another "
                "program before, since wgtune wrote their code differently then: what changed of these is not the "
                "machine alone."
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
        """Print the table and the summary sentences."""
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
    """Return the ids of the ``count`` slowest kernels of an image on a device, of those that have a record.

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


def stability(store: SqlReader, session_id: int, against: int | None = None) -> StabilityReport:
    """Compare a session's checks with those of session ``against``, or with the records that were checked.

    Raises:
        UsageError: there is no such session, nothing was measured again in it, nothing of that in ``against``, or the
            two are the same.
    """
    if against == session_id:
        raise UsageError(
            f"session {against} is the one that is shown: it cannot be compared with itself",
            "name an earlier one, or measure again (without --no-measure)",
        )
    session = next((kept for kept in store.sessions() if kept.session_id == session_id), None)
    sides = _sides(store, session_id, against) if session is not None else {}
    if session is None or not sides:
        if against is not None and _sides(store, session_id, None):
            raise _no_comparison(store, against)
        raise UsageError(f"session {session_id} of {store.name} measured nothing again", "wgtune report stability")
    workloads = store.workloads(sides)
    rows = [_row(workloads[identity].name, identity, *found) for identity, found in sides.items()]
    rows.sort(key=lambda row: -sum(row.before_s))
    after = [now for _, now in sides.values()]
    changes = [change for before, now in sides.values() for change in _changes(before, now)]
    rounds = max(now.rounds for now in after)
    return StabilityReport(
        model=session.info.model,
        session=session,
        against=against,
        provenance=provenance(store, session.info.device.key, session.info.runtime, _made(after)),
        rows=rows,
        rounds=rounds,
        overall=pooled([row.agreement for row in rows]),
        halves=pooled([agreement(*halves) for halves in map(Times.halves, after) if halves]) if rounds > 1 else None,
        change=statistics.median(changes),
        largest_change=max(changes),
        other_programs=sum(
            not digests(then) & digests(now)
            for before, now_ in sides.values()
            for then, now in zip(before.records, now_.records, strict=True)
        ),
    )


def check_against(store: SqlReader, against: int) -> None:
    """Raise UsageError where session ``against`` measured nothing again; call this before measuring for minutes."""
    if not remeasured(store, against):
        raise _no_comparison(store, against)


def _no_comparison(store: SqlReader, against: int) -> UsageError:
    others = [str(kept.session_id) for kept in store.sessions() if kept.info.reason == REASON]
    return UsageError(
        f"session {against} of {store.name} measured none of these schedules again",
        f"sessions that measured again: {', '.join(others)}" if others else "wgtune report stability",
    )


def _made(times: Iterable[Times]) -> list[Record]:
    return [record for one in times for made in one.records for record in made if record is not None]


def _sides(store: SqlReader, session_id: int, against: int | None) -> dict[str, tuple[Times, Times]]:
    """Return, by workload, the times before (of session ``against``, or the records) and those of the session's checks.

    Schedules are in the same order on both sides.
    """
    earlier = {_identity(found): found.checks for found in remeasured(store, against)} if against is not None else None
    found: dict[str, list[tuple[tuple[Record | None, ...], tuple[Record | None, ...]]]] = {}
    for one in remeasured(store, session_id):
        before = (one.before,) if earlier is None else earlier.get(_identity(one))
        if before is not None:
            found.setdefault(one.before.workload_id, []).append((before, one.checks))
    return {
        workload: (Times(tuple(before for before, _ in sides)), Times(tuple(after for _, after in sides)))
        for workload, sides in found.items()
    }


def _changes(before: Times, after: Times) -> list[float]:
    return [abs(now / then - 1) for then, now in zip(before.seconds, after.seconds, strict=True)]


def _identity(found: Remeasured) -> tuple[str, str]:
    return found.before.workload_id, found.before.trace


def _row(name: str, identity: str, before: Times, after: Times) -> StabilityRow:
    ranked = sorted(zip(before.seconds, after.seconds, strict=True))
    changes = _changes(before, after)
    known = [error for times in (before, after) for error in times.errors if math.isfinite(error)]
    return StabilityRow(
        name=name,
        workload_id=identity,
        before_s=tuple(then for then, _ in ranked),
        after_s=tuple(now for _, now in ranked),
        agreement=agreement(before, after),
        change=statistics.median(changes),
        largest_change=max(changes),
        error=statistics.median(known) if known else None,
    )


def _with_clear_tau(found: Agreement) -> dict[str, Any]:
    return {**plain(found), "clear_tau": found.clear_tau}


def _taus(found: Agreement) -> str:
    tied = f"where times within {percent(found.precision)} of each other are tied"
    return f"{coefficient(found.tau)} {tied}, {coefficient(found.untied_tau)} without ties"


_COLUMNS = [
    Column("name", "kernel", flexible=True),
    Column("schedules", "schedules", "right", drop=3),
    Column("before", "best before", "right", duration),
    Column("after", "now", "right", duration),
    Column("tau", "tau", "right", coefficient),
    Column("clear", "clear pairs kept", "right", drop=2),
    Column("change", "change", "right", percent),
    Column("largest", "largest", "right", percent, drop=1),
    Column("error", "±", "right", percent, drop=4),
]
