"""The search report as one HTML page: speed against trials by class of kernels, cold beside warm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...support.formatting import percent
from ...tuner.kernel_names import KernelClass
from ..provenance import SOFTWARE_WARNING
from ..search import ALL, DROPS_FIRST, SearchReport
from ..search_progress import ClassRow, marks
from ..tables import Column
from .charts import Tick
from .templating import rendered, write_text

_SIDE = 1000
_COLOURS = {ALL: "class-all", **{kind.value: f"class-{number}" for number, kind in enumerate(KernelClass, 1)}}
"""The style of a class's line, by its name: a class of `page.css`."""


@dataclass(frozen=True)
class _Line:
    """One class's curve on one side as an SVG path in 1000 × 1000; ``words`` say the same in text."""

    path: str
    colour: str
    dashed: bool
    words: str


def write_search_page(path: Path, report: SearchReport) -> None:
    """Write the page to ``path``. Raises WgtuneError where the file cannot be written."""
    write_text(path, search_page(report))


def search_page(report: SearchReport) -> str:
    """Return the page's text."""
    device, longest = report.device, max(row.curve[-1].trials for row in report.classes)
    several = len(report.sides) > 1
    shown = [name for name in _COLOURS if any(row.name == name for row in report.classes)]
    return rendered(
        "search.html.j2",
        title=f"Search for {report.model}'s kernels on {device.model or device.key}",
        subtitle=[device.key, f"measured through {report.runtime.value}", *(side.name for side in report.sides)],
        warning=SOFTWARE_WARNING if device.software else "",
        tiles=_tiles(report),
        sentences=report.sentences(),
        lines=[_line(row, longest, several and row.side == report.sides[0].name) for row in report.classes],
        legend=[(_COLOURS[name], name) for name in shown],
        dashed=report.sides[0].name if several else "",
        solid=report.sides[1].name if several else "",
        share_height=100 * report.share,
        share=report.goal,
        heights=[Tick(height, f"{height} %") for height in (0, 25, 50, 75, 100)],
        feet=[(100 * _across(trials, longest), f"{trials:,}") for trials in _sparse(marks(longest))],
        tables=_tables(report),
    )


def _tiles(report: SearchReport) -> list[tuple[str, str]]:
    found = [
        (str(row.median), f"trials to {report.goal}, median, {row.side}") for row in report.classes if row.name == ALL
    ]
    if report.comparisons:
        overall = report.comparisons[-1]
        first, second = (side.name for side in report.sides)
        found.append((overall.shown, f"trials, {second} by {first}"))
    return found


def _line(row: ClassRow, longest: int, dashed: bool) -> _Line:
    points = " ".join(f"{_SIDE * _across(one.trials, longest):.1f},{_SIDE * (1 - one.speed):.1f}" for one in row.curve)
    first, last = row.curve[0], row.curve[-1]
    words = (
        f"{row.name}, {row.side}: {percent(first.speed)} untuned, {percent(last.speed)} after {last.trials:,} trials, "
        f"{row.kernels} kernels"
    )
    return _Line(f"M{points}", _COLOURS[row.name], dashed, words)


def _across(trials: int, longest: int) -> float:
    """Return where a number of trials lies on the logarithmic axis, of one; 0 has a place, too."""
    return math.log2(trials + 1) / math.log2(longest + 1)


def _sparse(ticks: Sequence[int]) -> list[int]:
    """Return the ticks without those too near the last one to be written."""
    return [tick for tick in ticks[:-1] if 4 * tick <= 3 * ticks[-1]] + [ticks[-1]]


def _tables(report: SearchReport) -> list[tuple[str, str, list[str], list[list[str]]]]:
    """Return heading, explanation, heads and rows of each table."""
    found = []
    if report.comparisons:
        words = (
            "Over the kernels searched both ways: the geometric mean of their ratios, and the ratio of the sums. "
            f"A search that ended before {report.goal} counts with all its trials."
        )
        found.append(("Trials saved", words, *_cells(report.comparison_columns(), report.comparison_table())))
    words = "Speed after so many trials. A search that ended earlier keeps its last speed."
    # With every number of trials the table is wider than a page: those go that a narrow terminal drops first.
    columns = [column for column in report.class_columns() if column.drop < DROPS_FIRST]
    found.append(("Class by class", words, *_cells(columns, report.class_table())))
    columns = [column for column in report.kernel_columns() if column.key != "curve"]
    found.append(("All kernels", "What took most trials first.", *_cells(columns, report.table())))
    return found


def _cells(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    heads = [column.header for column in columns]
    return heads, [[column.format(row.get(column.key)) for column in columns] for row in rows]
