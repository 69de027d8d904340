"""What is in a database, as text."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ..database.admin import DatabaseInfo
from ..states import TrialState
from .tables import Column, print_json, print_rows
from .units import size

_COLUMNS = [
    Column("device", "device", flexible=True),
    *(Column(state.value, state.value.replace("_", " "), "right") for state in TrialState),
    Column("total", "total", "right"),
]


def print_database(info: DatabaseInfo, *, json: bool, console: Console) -> None:
    """Prints what `wgtune.database.admin.info` found: file, schema, models, sessions, trials by device and state."""
    if json:
        print_json(info, console)
        return
    sessions = ", ".join(f"{count} {outcome.value}" for outcome, count in info.sessions.items()) or "none"
    older = "" if info.revision == info.latest else f" (this program has {info.latest}: wgtune db upgrade)"
    lines = [
        f"database   {info.name}",
        *([f"size       {size(info.size_bytes)}"] if info.size_bytes is not None else []),
        f"schema     revision {info.revision or 'none'}{older}",
        f"models     {info.models}",
        f"kernels    {info.workloads}",
        f"sessions   {sessions}",
    ]
    console.print(Text("\n".join(lines)), soft_wrap=True)
    rows = [
        {
            "device": device,
            **{state.value: count for state, count in states.items()},
            "total": sum(states.values()),
        }
        for device, states in info.trials.items()
    ]
    if rows:
        console.print()
        seen = {key for row in rows for key in row}
        print_rows(rows, [column for column in _COLUMNS if column.key in seen], json=False, console=console)
