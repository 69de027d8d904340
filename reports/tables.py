"""Tables of every command: drawn in a terminal, aligned plain text when piped, JSON for scripts."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..support.console import UNSEEN
from ..support.formatting import MISSING
from ..support.serialization import plain


class Report(Protocol):
    """Interface of every report."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the table and the summary sentences."""


_GAP = 2
_NARROWEST = 16


def _as_text(value: Any) -> str:
    return MISSING if value is None else str(value)


@dataclass(frozen=True)
class Column:
    """One column: ``key`` into the rows, ``header`` with the unit in it.

    Where a terminal is too narrow, columns go in order of ``drop``, the highest first; 0 stays. A ``flexible`` column
    is then cut in the middle, which leaves both ends of a kernel's name. ``style`` names a colour for a cell's value.
    """

    key: str
    header: str
    justify: Literal["left", "right"] = "left"
    format: Callable[[Any], str] = _as_text
    drop: int = 0
    flexible: bool = False
    style: Callable[[Any], str] | None = None


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, json: bool, console: Console, title: str = ""
) -> None:
    """Print ``rows``: with ``json``, whole, as a JSON array; otherwise their ``columns`` as a table.

    A terminal gets a table that fits its width. Anything else gets every column in full, one row a line, so that the
    output can be searched and cut.
    """
    if json:
        print_json(list(rows), console)
        return
    cells = [[_cell(column, row.get(column.key)) for column in columns] for row in rows]
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    if console.is_terminal:
        _draw(rows, list(columns), cells, console)
    else:
        lines = _lines([[column.header for column in columns], *cells], columns)
        console.print(Text("\n".join(lines)), soft_wrap=True)


def print_left_out(total: int, shown: int, console: Console) -> None:
    """Print how many rows a shortened table does not show, if any."""
    left = total - shown
    if left:
        rows = "row" if left == 1 else "rows"
        console.print(Text(f"… and {left} more {rows}: --limit {total} shows all", style="dim"), soft_wrap=True)


def print_json(value: Any, console: Console) -> None:
    """Print a value as JSON, indented, untouched by the console's width and styles."""
    text = UNSEEN.sub(
        lambda match: f"\\u{ord(match[0]):04x}", json_module.dumps(plain(value), indent=2, ensure_ascii=False)
    )
    # Line breaks are JSON's own; all others stand in strings, where JSON has a word for them.
    console.print(Text(text), soft_wrap=True, highlight=False)


def print_report(made: Report, *, json: bool, console: Console, limit: int | None = None) -> None:
    """Print a report: as JSON, or as its table with the first ``limit`` rows and what it comes to."""
    if json:
        print_json(made.to_json(), console)
    else:
        made.render(console, limit)


def shorten(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` cells, its middle left out."""
    if cell_len(text) <= width:
        return text
    tail = (width - 1) * 2 // 5
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def _cell(column: Column, value: Any) -> str:
    # Names come from files and drivers: nothing in them may reach the terminal as a control sequence.
    return "".join(ch if ch.isprintable() else " " for ch in column.format(value))


def _lines(cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> list[str]:
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(columns))]
    lines = []
    for row in cells:
        padded = []
        for text, width, column in zip(row, widths, columns, strict=True):
            space = " " * (width - cell_len(text))
            padded.append(space + text if column.justify == "right" else text + space)
        lines.append((" " * _GAP).join(padded).rstrip())
    return lines


def _draw(rows: Sequence[Mapping[str, Any]], columns: list[Column], cells: list[list[str]], console: Console) -> None:
    shown = list(range(len(columns)))
    widths = [max([cell_len(column.header), *(cell_len(row[i]) for row in cells)]) for i, column in enumerate(columns)]

    def needed() -> int:
        return sum(min(widths[i], _NARROWEST) if columns[i].flexible else widths[i] for i in shown) + _GAP * len(shown)

    while needed() > console.width and any(columns[i].drop for i in shown):
        shown.remove(max(shown, key=lambda i: columns[i].drop))
    spare = console.width - needed()
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", padding=(0, _GAP - 1, 0, 0)
    )
    for i in shown:
        if columns[i].flexible:
            grown = min(widths[i], min(widths[i], _NARROWEST) + max(spare, 0))
            spare -= grown - min(widths[i], _NARROWEST)
            widths[i] = grown
        table.add_column(Text(columns[i].header), justify=columns[i].justify, no_wrap=True, overflow="ellipsis")
    for row, texts in zip(rows, cells, strict=True):
        line = []
        for i in shown:
            styled = columns[i].style
            text = shorten(texts[i], widths[i]) if columns[i].flexible else texts[i]
            line.append(Text(text, style=styled(row.get(columns[i].key)) if styled else ""))
        table.add_row(*line)
    console.print(table)
