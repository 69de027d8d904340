"""Fidelity report: whether times on one device, or through one runtime, predict those on another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from ..database.queries.shared_schedules import Pair, shared_schedules
from ..database.sql_reader import SqlReader
from ..support.enums import Runtime
from ..support.errors import UsageError
from ..support.formatting import coefficient, ratio
from ..support.serialization import plain
from ..tuner.kernel_names import kernel_class
from .rank_agreement import Times, agreement, digests, pooled
from .tables import Column, print_left_out, print_rows


@dataclass(frozen=True)
class FidelityRow:
    """One `KernelClass`, or all kernels.

    ``ratio`` is the geometric mean of ``there / here`` over the schedules, ``spread`` its geometric standard deviation
    (1 where all ratios are the same; None for a single one). ``tau`` is Kendall's between the orders of each kernel's
    schedules over all ``pairs``, None where no kernel has two; ``clear`` of the pairs differ by more than their noise
    in both places, and ``kept`` of these are in the same order: see `rank_agreement.Agreement`. ``best_kept``
    counts the kernels whose fastest schedule here is the fastest there, of ``ranked`` that have two or more.
    """

    name: str
    kernels: int
    schedules: int
    ratio: float
    spread: float | None
    tau: float | None
    pairs: int
    clear: int
    kept: int
    best_kept: int
    ranked: int


@dataclass(frozen=True)
class FidelityReport:
    """Schedules measured on two devices: per class of kernels, and over all."""

    here: str
    here_runtime: Runtime
    there: str
    there_runtime: Runtime
    label: str
    rows: list[FidelityRow]
    overall: FidelityRow
    points: list[tuple[str, float, float]]
    """Each schedule: its kernel's class, seconds here and seconds there."""
    other_programs: int = 0
    """Schedules that were another program there, where both places run WGSL."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ratios of times, there by here."""
        result: dict[str, Any] = {"report": "fidelity", **plain(self)}
        return result

    def sentences(self) -> list[str]:
        """Return the summary as sentences."""
        found = self.overall
        there = f"{self.there} ({self.label})" if self.label else self.there
        lines = [
            f"A schedule takes {found.ratio:.2f} × as long on {there} as on {self.here}: the geometric mean of "
            f"{found.schedules}."
        ]
        if found.spread is not None:
            lines.append(f"About two thirds lie within a factor of {found.spread:.2f} of that.")
        if self.other_programs:
            lines.append(
                f"{self.other_programs} of {found.schedules} were another program there, since wgtune wrote their WGSL "
                "differently then: these ratios are not the devices' alone. wgtune tune measures the best again."
            )
        if found.tau is not None:
            lines.append(
                f"Kendall's tau between the two orders: {found.tau:.2f} over {found.pairs} pairs; {found.clear} differ "
                f"by more than their noise in both places, and {found.kept} of these keep their order. The fastest "
                f"schedule is the same for {found.best_kept} of {found.ranked} kernels."
            )
        return lines

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the table and the summary sentences."""
        rows = [{**plain(row), "kept": f"{row.kept} of {row.clear}"} for row in self.rows[:limit]]
        title = f"{self.there} ({self.there_runtime.value}) against {self.here} ({self.here_runtime.value})"
        print_rows(rows, _COLUMNS, json=False, console=console, title=title)
        print_left_out(len(self.rows), len(rows), console)
        for line in self.sentences():
            console.print(Text(line), soft_wrap=not console.is_terminal)


def fidelity(
    store: SqlReader, here: tuple[str, Runtime], there: tuple[str, Runtime], label: str = ""
) -> FidelityReport:
    """Compare what was measured on both devices (key and runtime).

    Raises:
        UsageError: they share no schedule.
    """
    pairs = shared_schedules(store, here, there, label)
    if not pairs:
        raise UsageError(
            f"{store.name} has no schedule that was measured both on {here[0]} and on {there[0]}"
            + (f" as {label!r}" if label else ""),
            f"wgtune report fidelity --device {here[0]} --against {there[0]} --measure",
        )
    kernels: dict[str, list[Pair]] = {}
    for pair in pairs:
        kernels.setdefault(pair.here[0].workload_id, []).append(pair)
    names = {key: info.name for key, info in store.workloads(kernels).items()}
    by_class: dict[str, list[_Sides]] = {}
    for identity, found in kernels.items():
        sides = _Sides(Times(tuple(one.here for one in found)), Times(tuple(one.there for one in found)))
        by_class.setdefault(kernel_class(names[identity]).value, []).append(sides)
    rows = sorted((_row(name, found) for name, found in by_class.items()), key=lambda row: (-row.schedules, row.name))
    points = [(name, *times) for name, found in by_class.items() for sides in found for times in sides.times]
    overall = _row("all", [one for found in by_class.values() for one in found])
    wgsl = {here[1], there[1]} <= {Runtime.WGPU, Runtime.BROWSER}
    other = sum(not digests(pair.here) & digests(pair.there) for pair in pairs) if wgsl else 0
    return FidelityReport(*here, *there, label, rows, overall, points, other)


class _Sides(NamedTuple):
    """One kernel's schedules in both places, in the same order."""

    here: Times
    there: Times

    @property
    def times(self) -> list[tuple[float, float]]:
        return list(zip(self.here.seconds, self.there.seconds, strict=True))


def _row(name: str, kernels: Sequence[_Sides]) -> FidelityRow:
    times = [sides.times for sides in kernels]
    logs = [math.log(there / here) for found in times for here, there in found]
    ranked = [found for found in times if len(found) > 1]
    order = pooled([agreement(*sides) for sides in kernels])
    return FidelityRow(
        name=name,
        kernels=len(kernels),
        schedules=len(logs),
        ratio=math.exp(statistics.fmean(logs)),
        spread=math.exp(statistics.stdev(logs)) if len(logs) > 1 else None,
        tau=order.tau,
        pairs=order.pairs,
        clear=order.clear,
        kept=order.kept,
        best_kept=sum(min(found) == min(found, key=lambda both: both[1]) for found in ranked),
        ranked=len(ranked),
    )


_COLUMNS = [
    Column("name", "class", flexible=True),
    Column("kernels", "kernels", "right", drop=2),
    Column("schedules", "schedules", "right"),
    Column("ratio", "time there", "right", ratio),
    Column("spread", "spread", "right", ratio, drop=1),
    Column("tau", "tau", "right", coefficient),
    Column("kept", "clear pairs kept", "right", drop=2),
    Column("best_kept", "best kept", "right", drop=3),
]
