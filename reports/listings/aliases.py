"""Aliases of devices, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ...database.device_identity import Alias
from ...support.formatting import MISSING
from ..tables import Column, print_rows


def _part(value: str | None) -> str:
    return value or MISSING


_COLUMNS = [
    Column("name", "name", flexible=True),
    Column("level", "of a", format=lambda level: level.value),
    Column("vendor", "vendor", format=_part),
    Column("architecture", "architecture", format=_part),
    Column("model", "model", format=_part),
    Column("origin", "from"),
]


def print_aliases(own: Sequence[Alias], shipped: Sequence[Alias], *, json: bool, console: Console) -> None:
    """Print the user's aliases, then the shipped ones."""
    rows = [{**vars(alias), "origin": "you"} for alias in own] + [{**vars(a), "origin": "wgtune"} for a in shipped]
    print_rows(rows, _COLUMNS, json=json, console=console)
