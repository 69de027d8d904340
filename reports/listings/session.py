"""All stored values of a session or a trial, one line each."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from ...database.schema.records import SessionRecord
from ...support.serialization import plain
from ..tables import print_json


def print_shown(shown: SessionRecord | dict[str, Any], *, json: bool, console: Console) -> None:
    """Print names and values, none left out or shortened."""
    values = plain(shown)
    if json:
        print_json(values, console)
        return
    info = values.pop("info", {})
    lines = [f"{name:<15} {value}" for name, value in {**values, **info}.items()]
    console.print(Text("\n".join(lines)), soft_wrap=True)
