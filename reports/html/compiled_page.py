"""The report on compiled programs as one HTML page: the bound of each chip, and every kernel's facts."""

from __future__ import annotations

from pathlib import Path

from ...support.formatting import coefficient, percent
from ..compiled import BOUND_COLUMNS, COLUMNS, NO_TIMES, CompiledReport
from ..tables import Column
from .templating import rendered, write_text


def write_compiled_page(path: Path, report: CompiledReport) -> None:
    """Write the page to ``path``. Raises WgtuneError where the file cannot be written."""
    write_text(path, compiled_page(report))


def compiled_page(report: CompiledReport) -> str:
    """Return the page's text."""
    image = [bound for bound in report.bounds if bound.stage == "image"]
    return rendered(
        "compiled.html.j2",
        title=report.subject,
        subtitle=[report.compiler, f"{report.steps} steps", *(f"{c.name}: {c.architecture}" for c in report.chips)],
        warning=NO_TIMES,
        tiles=[(percent(bound.share), f"of {bound.chip}'s peak at most") for bound in image if bound.share is not None],
        sentences=report.sentences()[2:],
        heads=[column.header for column in COLUMNS],
        rows=[[_cell(column, row[column.key]) for column in COLUMNS] for row in report.table()],
        bound_heads=[column.header for column in BOUND_COLUMNS],
        bound_rows=[[_cell(column, vars(bound)[column.key]) for column in BOUND_COLUMNS] for bound in report.bounds],
        stages=[
            (f"{bound.chip}, {bound.stage}", coefficient(bound.share), 100 * bound.share)
            for bound in report.bounds
            if bound.share is not None
        ],
    )


def _cell(column: Column, value: object) -> str:
    return column.format(value)
