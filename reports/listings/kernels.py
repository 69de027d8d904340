"""The kernel inventory of a model, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from ...support.formatting import digits, percent
from ...tuner.capture.kernel_table import KernelRow
from ..tables import Column, print_left_out, print_rows

_COLUMNS = [
    Column("name", "kernel", flexible=True),
    Column("stage", "stage"),
    Column("calls", "calls", "right", lambda count: f"{count:,}"),
    Column("gflop", "GFLOP", "right", lambda value: f"{value:,.3f}"),
    Column("mib", "MiB", "right", lambda value: f"{value:,.2f}"),
    Column("intensity", "FLOP/B", "right", digits, drop=1),
    Column("share", "share %", "right", lambda share: percent(share).removesuffix(" %")),
    Column("shapes", "shapes", drop=2, flexible=True),
]


def print_kernels(rows: Sequence[KernelRow], *, limit: int | None, json: bool, console: Console) -> None:
    """Print the rows in the order given, or the first ``limit`` of them; GFLOP and MiB are per launch."""
    shown = list(rows[:limit])
    print_rows([asdict(row) for row in shown], _COLUMNS, json=json, console=console)
    if not json:
        kernels, calls = len({row.id for row in rows}), sum(row.calls for row in rows)
        gflop = sum(row.calls * row.gflop for row in rows)
        print_left_out(len(rows), len(shown), console)
        console.print(
            Text(f"{kernels} kernels, {calls:,} launches, {digits(gflop)} GFLOP"),
            soft_wrap=not console.is_terminal,
        )
