"""Coverage report: what is known of each kernel of a model on a device, and its share of an image's time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rich.console import Console
from rich.text import Text

from ..database.queries.transfer_lookup import lookup
from ..database.reader import Reader
from ..database.schema.records import ModelInfo, Record, TrialKind
from ..support.enums import Match, Runtime, TrialState
from ..support.formatting import percent
from ..support.serialization import plain
from .launch_counts import model_launches
from .provenance import SOFTWARE_WARNING, Provenance, provenance
from .tables import Column, print_left_out, print_rows


class Coverage(str, Enum):
    """What is known of a kernel on a device."""

    IMPROVED = "improved"
    """A schedule that a search found, here or elsewhere, is the fastest that was verified."""
    BASELINE_WON = "baseline won"
    """Schedules that a search found were verified, and the untuned one is faster."""
    MEASURED = "measured"
    """Only the untuned schedule was measured and verified."""
    STALE = "stale"
    """There are records, but the installed TVM cannot apply any of them."""
    FAILED = "failed"
    """There were trials, and all of them failed."""
    NEVER_MEASURED = "never measured"
    """No trial has ended."""

    @property
    def searched(self) -> bool:
        """Whether a schedule that a search found was verified."""
        return self in (Coverage.IMPROVED, Coverage.BASELINE_WON)


COLOURS = {
    Coverage.IMPROVED: "green",
    Coverage.BASELINE_WON: "green",
    Coverage.MEASURED: "yellow",
    Coverage.STALE: "red",
    Coverage.FAILED: "red",
    Coverage.NEVER_MEASURED: "red",
}


@dataclass(frozen=True)
class Lender:
    """Another device whose schedule a kernel without a record could borrow, and how near that device is."""

    device: str
    match: Match

    def __str__(self) -> str:
        return f"{self.match.value}: {self.device}"


@dataclass(frozen=True)
class CoverageRow:
    """One kernel. ``launches`` is per batch of images.

    ``time_share`` is its part of the image's known time, None while it has none; ``work_share`` its part of the image's
    floating-point operations, known before anything is measured.
    ``lender`` has what a kernel without a record of this device could borrow.
    """

    name: str
    workload_id: str
    stages: tuple[str, ...]
    launches: int
    status: Coverage
    time_share: float | None
    work_share: float | None
    trials: dict[TrialState, int]
    lender: Lender | None = None

    @property
    def tried(self) -> int:
        """Trials that ended, abandoned ones aside."""
        return sum(count for state, count in self.trials.items() if state.ended and state is not TrialState.ABANDONED)

    @property
    def failures(self) -> int:
        """Trials that failed because of the candidate itself."""
        return sum(count for state, count in self.trials.items() if state.fault)


@dataclass(frozen=True)
class CoverageReport:
    """Coverage of one model on one device; rows by share of the image's time, the kernels without any time first."""

    model: ModelInfo
    steps: int
    provenance: Provenance
    rows: list[CoverageRow]

    def count(self, status: Coverage) -> int:
        """Return the number of kernels with that status."""
        return sum(row.status is status for row in self.rows)

    def time_share(self, status: Coverage) -> float:
        """Return the share of these kernels in the known time of an image."""
        return sum(row.time_share or 0.0 for row in self.rows if row.status is status)

    @property
    def states(self) -> dict[TrialState, int]:
        """Trials of all kernels by state."""
        total: Counter[TrialState] = Counter()
        for row in self.rows:
            total.update(row.trials)
        return {state: total[state] for state in TrialState if total[state]}

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; shares are of one."""
        summary = {
            status.value: {"kernels": self.count(status), "time_share": self.time_share(status)} for status in Coverage
        }
        data = {
            "report": "coverage",
            "model": self.model,
            "steps": self.steps,
            "provenance": self.provenance,
            "summary": summary,
            "trials": self.states,
            "kernels": self.rows,
        }
        result: dict[str, Any] = plain(data)
        return result

    def sentences(self) -> list[str]:
        """Return sentences on what is missing, and the command to run next."""
        device = self.provenance.device.key
        open_rows = [row for row in self.rows if not row.status.searched]
        if not self.rows:
            return ["The model has no kernels."]
        if not open_rows:
            improved, won = self.count(Coverage.IMPROVED), self.count(Coverage.BASELINE_WON)
            found = f"{improved} improved, {won} where the baseline won"
            return [f"All {len(self.rows)} kernels were searched on {device}: {found}."]
        lines = []
        without = sum(row.time_share is None for row in self.rows)
        if without:
            lines.append(
                f"{without} of {len(self.rows)} kernels have no time on {device}: shares are of the time that is known."
            )
        if stale := self.count(Coverage.STALE):
            lines.append(f"{stale} of them have records that the installed TVM does not apply: see wgtune db replay.")
        if only := self.count(Coverage.MEASURED):
            share = percent(self.time_share(Coverage.MEASURED))
            lines.append(f"{only} of {len(self.rows)} kernels, {share} of the known time, were measured, not searched.")
        if lent := Counter(str(row.lender) for row in self.rows if row.lender is not None):
            named = "; ".join(f"{count} from {lender}" for lender, count in lent.items())
            lines.append(f"Could be borrowed, verified there and not here: {named}.")
        lines.append(f"To go on: wgtune tune --device {device}, with the --model as before")
        return lines

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the report: kernels (only the first ``limit``), a summary, what is missing."""
        device = self.provenance.device
        console.print(
            Text(f"Coverage of {self.model.name} on {device.key} ({device.model}), {self.steps} steps", style="bold"),
            soft_wrap=True,
        )
        rows = [
            {
                "name": row.name,
                "stages": "+".join(row.stages),
                "status": row.status,
                "time": row.time_share,
                "work": row.work_share,
                "launches": row.launches,
                "tried": row.tried,
                "failed": row.failures,
                "why": ", ".join(f"{count} {state.value}" for state, count in row.trials.items() if state.fault),
            }
            for row in self.rows[:limit]
        ]
        print_rows(rows, _COLUMNS, json=False, console=console)
        print_left_out(len(self.rows), len(rows), console)
        console.print()
        summary = [
            {"status": status, "kernels": self.count(status), "time": self.time_share(status)}
            for status in Coverage
            if self.count(status)
        ]
        print_rows(summary, _SUMMARY, json=False, console=console)
        console.print()
        states = ", ".join(f"{count} {state.value}" for state, count in self.states.items())
        console.print(Text(f"Trials: {states or 'none'}"), soft_wrap=not console.is_terminal)
        for line in self.sentences():
            console.print(Text(line), soft_wrap=not console.is_terminal)
        if device.software:
            console.print(Text(SOFTWARE_WARNING, style="yellow"), soft_wrap=not console.is_terminal)


def coverage(
    store: Reader, capture_key: str, device_key: str, steps: int, runtime: Runtime = Runtime.WGPU
) -> CoverageReport:
    """Return the coverage of a model on a device at ``steps`` model calls per image.

    Raises:
        UsageError: the database knows no such model or device.
    """
    launches = model_launches(store, capture_key, steps)
    ids = launches.workload_ids
    best = store.best(device_key, ids, runtime)
    counts = store.counts(device_key, ids, runtime)
    usable = store.counts(device_key, ids, runtime, with_stale=False)
    searched = store.counts(device_key, ids, runtime, kind=TrialKind.SEARCH, with_stale=False)
    for key, states in store.counts(device_key, ids, runtime, kind=TrialKind.TRANSFER, with_stale=False).items():
        searched[key] = dict(Counter(searched.get(key, {})) + Counter(states))
    device = next((known for known in store.devices() if known.key == device_key), None)
    lent = lookup(store, device, [key for key in ids if key not in best], runtime) if device is not None else {}
    seconds = {
        kernel.workload.id: kernel.total * best[kernel.workload.id].latency_s
        for kernel in launches.kernels
        if kernel.workload.id in best
    }
    work = {kernel.workload.id: kernel.total * kernel.workload.flops for kernel in launches.kernels}
    all_seconds, all_work = sum(seconds.values()), sum(work.values())
    rows = []
    for kernel in launches.kernels:
        key = kernel.workload.id
        trials = counts.get(key, {})
        row = CoverageRow(
            name=kernel.workload.name,
            workload_id=key,
            stages=tuple(kernel.stages),
            launches=kernel.total,
            status=_status(trials, usable.get(key, {}), searched.get(key, {}), best.get(key)),
            time_share=seconds[key] / all_seconds if key in seconds and all_seconds else None,
            work_share=work[key] / all_work if all_work else None,
            trials={state: trials[state] for state in TrialState if state in trials},
            lender=Lender(found.device.key, found.match) if (found := lent.get(key)) is not None else None,
        )
        rows.append(row)
    rows.sort(key=lambda row: (row.time_share is not None, -(row.time_share or 0.0), -(row.work_share or 0.0)))
    return CoverageReport(launches.model, steps, provenance(store, device_key, runtime, best.values()), rows)


def _status(
    trials: dict[TrialState, int], usable: dict[TrialState, int], searched: dict[TrialState, int], best: Record | None
) -> Coverage:
    if best is not None and best.kind is not TrialKind.BASELINE:
        return Coverage.IMPROVED
    if best is not None:
        return Coverage.BASELINE_WON if searched.get(TrialState.OK) else Coverage.MEASURED
    if trials.get(TrialState.OK, 0) > usable.get(TrialState.OK, 0):
        return Coverage.STALE
    return Coverage.FAILED if any(state.fault for state in trials) else Coverage.NEVER_MEASURED


_COLUMNS = [
    Column("name", "kernel", flexible=True),
    Column("stages", "stage"),
    Column("status", "status", format=lambda status: status.value, style=COLOURS.__getitem__),
    Column("time", "time %", "right", lambda share: percent(share).removesuffix(" %")),
    Column("work", "FLOP %", "right", lambda share: percent(share).removesuffix(" %"), drop=1),
    Column("launches", "launches", "right", lambda count: f"{count:,}", drop=2),
    Column("tried", "trials", "right", lambda count: f"{count:,}"),
    Column("failed", "failed", "right", lambda count: f"{count:,}"),
    Column("why", "failures", drop=3),
]
_SUMMARY = [
    Column("status", "status", format=lambda status: status.value, style=COLOURS.__getitem__),
    Column("kernels", "kernels", "right"),
    Column("time", "time %", "right", lambda share: percent(share).removesuffix(" %")),
]
