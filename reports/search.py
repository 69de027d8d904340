"""Search report: best time so far against trials, cold against warm, by class of kernels."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from rich.console import Console
from rich.text import Text

from ..database.queries.search_history import search_histories
from ..database.reader import Reader
from ..database.schema.records import DeviceInfo
from ..database.sql_reader import SqlReader
from ..support.enums import Runtime
from ..support.errors import UsageError
from ..support.formatting import percent, ratio
from ..support.serialization import plain
from ..tuner.kernel_names import KernelClass, kernel_class
from .provenance import SOFTWARE_WARNING
from .search_progress import (
    ClassRow,
    Comparison,
    KernelSearch,
    Progress,
    class_row,
    compared,
    marks,
    progress,
)
from .tables import Column, print_left_out, print_rows

SHARE = 0.95
"""Part of the best known speed from which a search counts as having got there."""
ALL = "all"
"""The name of the row over all classes."""
_NAMES = [*(kind.value for kind in KernelClass), ALL]
_BARS = "▁▂▃▄▅▆▇█"
DROPS_FIRST = 20
"""The least `Column.drop` of every other number of trials, which go first."""


@dataclass(frozen=True)
class Side:
    """Searches that are shown as one line: by what they began with (cold, warm), or by their database."""

    name: str
    searches: dict[str, KernelSearch]


@dataclass(frozen=True)
class SearchReport:
    """Searches of one model's kernels on one device; ``sides`` has one or two.

    ``unsearched`` counts the chosen kernels without a trial beyond baselines, ``failed`` those without a verified
    time, ``elsewhere`` those whose best known time is of neither side, such as a release's.
    """

    model: str
    device: DeviceInfo
    runtime: Runtime
    share: float
    sides: tuple[Side, ...]
    chosen: int
    unsearched: int
    failed: int
    elsewhere: int

    @cached_property
    def classes(self) -> list[ClassRow]:
        """The rows of every class that has kernels, then those of all; the sides of each follow each other."""
        return [
            class_row(name, side.name, found, self.share)
            for name in _NAMES
            for side in self.sides
            if (found := [one for one in side.searches.values() if name in (ALL, one.kind.value)])
        ]

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The second side by the first for every class with kernels in both, then over all; empty of one side."""
        if len(self.sides) < 2:
            return []
        first, second = (side.searches for side in self.sides)
        both = [(first[key], second[key]) for key in first if key in second]
        named = [(name, [pair for pair in both if name in (ALL, pair[0].kind.value)]) for name in _NAMES]
        return [compared(name, pairs, self.share) for name, pairs in named if pairs]

    @property
    def goal(self) -> str:
        """The share of the best known speed as text: ``95 %``, ``97.5 %``."""
        return f"{percent(self.share).removesuffix(' %').removesuffix('.0')} %"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: seconds, speeds as parts of the best known, and numbers of trials."""
        data = {
            "report": "search",
            "model": self.model,
            "device": self.device,
            "runtime": self.runtime,
            "share": self.share,
            "chosen": self.chosen,
            "unsearched": self.unsearched,
            "failed": self.failed,
            "best_known_elsewhere": self.elsewhere,
            "classes": [
                {
                    **vars(row),
                    "curve": [point._asdict() for point in row.curve],
                    "median": row.median._asdict(),
                    "mean": row.mean._asdict(),
                }
                for row in self.classes
            ],
            "comparisons": [{**vars(one), "bound": one.bound} for one in self.comparisons],
            "kernels": [self._kernel_json(side, one) for side in self.sides for one in side.searches.values()],
        }
        result: dict[str, Any] = plain(data)
        return result

    def _kernel_json(self, side: Side, one: KernelSearch) -> dict[str, Any]:
        return {
            "name": one.name,
            "workload_id": one.workload_id,
            "class": one.kind.value,
            "side": side.name,
            "warm": one.progress.warm,
            "trials": one.progress.trials,
            "left_out": one.progress.left_out,
            "best_known_s": one.best_s,
            "needed": one.needed(self.share)._asdict(),
            "steps": [step._asdict() for step in one.progress.steps],
        }

    def sentences(self) -> list[str]:
        """Return sentences on the figures as a whole."""
        share = self.goal
        lines = [
            "Speeds are parts of the best known, of several kernels their geometric mean. The untuned baseline is "
            "trial 0; schedules taken from elsewhere and failures count as trials.",
        ]
        for row in self.classes:
            if row.name == ALL:
                missed = f"; {row.missed} did not get there, and count with all their trials" if row.missed else ""
                side = f", {row.side}" if len(self.sides) > 1 else ""
                lines.append(
                    f"Trials until {share} of the best known speed{side}: median {row.median}, geometric mean "
                    f"{row.mean}, over {_count(row.kernels, 'kernel')}{missed}."
                )
        if self.comparisons:
            lines.append(self._compared(self.comparisons[-1], share))
        elif len(self.sides) > 1:
            lines.append(f"No kernel was searched both {self.sides[0].name} and {self.sides[1].name}: no comparison.")
        if own := len({key for side in self.sides for key in side.searches}) - self.elsewhere:
            lines.append(
                f"{_count(own, 'best known time')} came of these searches: where a longer one finds better, they "
                "needed more trials than is said here."
            )
        if self.elsewhere:
            lines.append(
                f"{_count(self.elsewhere, 'best known time')} came of a release or a later session, perhaps on another "
                "machine: --no-releases leaves releases out."
            )
        if left := sum(one.progress.left_out for side in self.sides for one in side.searches.values()):
            lines.append(
                f"{_count(left, 'trial')} of sessions that continued a cold search warm, or a warm one cold, counted "
                "for the best known alone."
            )
        if self.unsearched:
            lines.append(f"{self.unsearched} of {_count(self.chosen, 'kernel')} were not searched.")
        if self.failed:
            lines.append(f"Left out: {_count(self.failed, 'kernel')} without a verified time.")
        return lines

    def _compared(self, all_: Comparison, share: str) -> str:
        first, second = (side.name for side in self.sides)
        total = "" if all_.total_ratio is None else f", {ratio(all_.total_ratio)} in sum"
        words = (
            f" A search that did not get there ({all_.first_missed} {first}, {all_.second_missed} {second}) counts "
            f"with all its trials, so that the true ratio is {_BOUND_WORDS[all_.bound]}."
        )
        return (
            f"{second} takes {all_.shown} the trials of {first} until {share} of the best known speed (geometric "
            f"mean over {_count(all_.kernels, 'kernel')}){total}.{words if all_.bound else ''}"
        )

    def table(self) -> list[dict[str, Any]]:
        """Return the rows of the table of kernels: what took most trials first."""
        found = [(one, side, one.needed(self.share)) for side in self.sides for one in side.searches.values()]
        found.sort(key=lambda row: (not row[2].at_least, -row[2].trials, row[0].name, row[1].name))
        longest = max((one.progress.trials for one, _, _ in found), default=0)
        return [
            {
                "name": one.name,
                "class": one.kind.value,
                "side": side.name,
                "trials": one.progress.trials,
                "start": one.speed(0),
                "end": one.speed(one.progress.trials),
                "curve": _sparkline([one.speed(trials) for trials in marks(longest)]),
                "needed": needed,
            }
            for one, side, needed in found
        ]

    def class_columns(self) -> list[Column]:
        """Return the columns of the table of classes, one for each number of trials at which all curves are read."""
        at = marks(max(row.curve[-1].trials for row in self.classes))
        ticks = [
            Column(str(tick), f"{tick}" if tick else "0 trials", "right", _whole_percent, drop=_drop(index, len(at)))
            for index, tick in enumerate(at)
        ]
        side = [Column("side", "search")] if len(self.sides) > 1 else []
        needed = [
            Column("median", f"to {self.goal}: median", "right"),
            Column("mean", "mean", "right"),
            Column("missed", "not reached", "right"),
        ]
        return [Column("name", "class", flexible=True), *side, Column("kernels", "kernels", "right"), *ticks, *needed]

    def comparison_columns(self) -> list[Column]:
        """Return the columns of the table of comparisons."""
        first, second = (side.name for side in self.sides)
        return [
            Column("name", "class", flexible=True),
            Column("kernels", "kernels in both", "right"),
            Column("shown", f"trials, {second} by {first}", "right"),
            Column("total_ratio", "in sum", "right", ratio),
            Column("first_missed", f"{first}: not reached", "right", drop=2),
            Column("second_missed", f"{second}: not reached", "right", drop=1),
        ]

    def comparison_table(self) -> list[dict[str, Any]]:
        """Return the rows of the table of comparisons."""
        return [{**vars(one), "shown": one.shown} for one in self.comparisons]

    def class_table(self) -> list[dict[str, Any]]:
        """Return the rows of the table of classes; a curve that ended earlier keeps its last speed."""
        longest = max(row.curve[-1].trials for row in self.classes)
        found = []
        for row in self.classes:
            values: dict[str, Any] = {**vars(row)}
            for tick in marks(longest):
                values[str(tick)] = [point.speed for point in row.curve if point.trials <= tick][-1]
            found.append(values)
        return found

    def kernel_columns(self) -> list[Column]:
        """Return the columns of the table of kernels."""
        return [
            Column("name", "kernel", flexible=True),
            Column("class", "class", drop=3),
            *([Column("side", "search")] if len(self.sides) > 1 else []),
            Column("trials", "trials", "right", lambda count: f"{count:,}"),
            Column("start", "untuned", "right", _whole_percent, drop=2),
            Column("end", "at the end", "right", _whole_percent, drop=1),
            Column("curve", "speed", drop=4),
            Column("needed", f"trials to {self.goal}", "right"),
        ]

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the table of kernels (only the first ``limit``), that of classes, the comparison, and sentences."""
        title = f"Search for {self.model}'s kernels on {self.device.key} ({self.runtime.value})"
        rows = self.table()
        print_rows(rows[:limit], self.kernel_columns(), json=False, console=console, title=title)
        print_left_out(len(rows), len(rows[:limit]), console)
        console.print()
        print_rows(self.class_table(), self.class_columns(), json=False, console=console)
        console.print()
        if self.comparisons:
            print_rows(
                self.comparison_table(),
                self.comparison_columns(),
                json=False,
                console=console,
            )
            console.print()
        for line in self.sentences():
            console.print(Text(line), soft_wrap=not console.is_terminal)
        if self.device.software:
            console.print(Text(SOFTWARE_WARNING, style="yellow"), soft_wrap=not console.is_terminal)


def search_report(
    store: Reader,
    model: str,
    names: Mapping[str, str],
    device: DeviceInfo,
    runtime: Runtime,
    against: SqlReader | None = None,
    share: float = SHARE,
) -> SearchReport:
    """Return the report on the searches in the user's own database, and in ``against`` where it is given.

    Args:
        store: The database over releases; of these only the best times count, since they hold no searches.
        model: The model's name, for the title.
        names: The kernels' names by id.
        device: Where the trials ran.
        runtime: How they were measured.
        against: Another database with searches on the same device.
        share: The part of the best known speed that counts as having got there.

    Raises:
        UsageError: one of the databases holds no search for these kernels on the device.
    """
    readers = [store.layers[0], *([against] if against is not None else [])]
    found = [_progress(reader, names, device, runtime) for reader in readers]
    best = {key: record.latency_s for key, record in store.best(device.key, names, runtime).items() if record.latency_s}
    reached: dict[str, float] = {}
    for key, one in (item for by_kernel in found for item in by_kernel.items()):
        if one.steps:
            reached[key] = min(one.steps[-1].best_s, reached.get(key, math.inf))
    known = {key: min(seconds, best.get(key, math.inf)) for key, seconds in reached.items()}
    searches = [
        {
            key: KernelSearch(names[key], key, kernel_class(names[key]), one, known[key])
            for key, one in by_kernel.items()
            if one.steps and one.trials
        }
        for by_kernel in found
    ]
    begun = {key for by_kernel in found for key, one in by_kernel.items() if one.trials}
    shown = {key for one in searches for key in one}
    if not shown:
        raise _nothing(readers[0], model, device)
    return SearchReport(
        model=model,
        device=device,
        runtime=runtime,
        share=share,
        sides=_sides(searches, [reader.name for reader in readers]),
        chosen=len(names),
        unsearched=len(names) - len(begun),
        failed=len(begun - shown),
        elsewhere=sum(known[key] < reached[key] for key in shown),
    )


def _progress(reader: SqlReader, names: Collection[str], device: DeviceInfo, runtime: Runtime) -> dict[str, Progress]:
    """Return the progress of every kernel that a database has trials of; raise UsageError where none is of a search."""
    warm = {kept.session_id for kept in reader.sessions(device_key=device.key) if kept.info.budget.get("warm") is True}
    histories = search_histories(reader, device.key, names, runtime)
    found = {key: progress(history, warm) for key, history in histories.items()}
    if not any(one.trials for one in found.values()):
        raise _nothing(reader, "these kernels", device)
    return found


def _nothing(reader: SqlReader, what: str, device: DeviceInfo) -> UsageError:
    return UsageError(
        f"{reader.name} holds no search for {what} on {device.key} (a release keeps the best trials, not the searches)",
        f"name another --device or --db, or make one: wgtune tune --device {device.key}",
    )


def _sides(searches: Sequence[dict[str, KernelSearch]], databases: Sequence[str]) -> tuple[Side, ...]:
    """Return cold before warm; of two databases that do not differ in this, the one compared with before the other."""
    own, *others = searches
    both = [(own[key], other[key]) for other in others for key in own if key in other]
    if both and any(one.progress.warm is other.progress.warm for one, other in both):
        short = [PurePath(name).name for name in databases]
        names = short if len(set(short)) == len(short) else databases
        return tuple(Side(name, found) for name, found in zip(reversed(names), reversed(searches), strict=True))
    every = [item for found in searches for item in found.items()]
    return tuple(
        Side(name, found)
        for name, warm in (("cold", False), ("warm", True))
        if (found := {key: one for key, one in every if one.progress.warm is warm})
    )


_BOUND_WORDS = {"≤": "that or less", "≥": "that or more", "≈": "not certain either way"}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _whole_percent(part: float | None) -> str:
    return f"{100 * (part or 0.0):.0f} %"


def _drop(at: int, count: int) -> int:
    """Return a tick's place in the order in which columns go: the first and the last stay, every other goes first."""
    if at in (0, count - 1):
        return 0
    return DROPS_FIRST + at if at % 2 else at


def _sparkline(speeds: Sequence[float]) -> str:
    return "".join(_BARS[min(int(max(speed, 0.0) * len(_BARS)), len(_BARS) - 1)] for speed in speeds)
