"""Health of the devices in a database: trials, faults, quarantine, suspension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ...database.queries.health import DeviceHealth
from ...database.schema.records import UNNAMED_DRIVER
from ...support.enums import QUARANTINE_AFTER, SUSPEND_AFTER, TrialState
from ...support.serialization import plain
from ..tables import Column, print_json, print_rows

_COLUMNS = [
    Column("device", "device", flexible=True),
    Column("runtime", "runtime", drop=2),
    Column("health", "health", style=lambda health: "red" if health == "suspended" else ""),
    Column("trials", "trials", "right", lambda count: f"{count:,}"),
    *(
        Column(state.value, state.value.replace("_", " "), "right", lambda count: f"{count:,}")
        for state in TrialState
        if state.fault
    ),
    Column("quarantined", "quarantined", "right"),
]

_QUARANTINED = [
    Column("device", "device"),
    Column("kernel", "kernel", flexible=True),
    Column("program", "program"),
    Column("crashes", "crashes", "right"),
    Column("how", "how"),
    Column("driver", "driver", flexible=True, drop=1),
]


def print_health(healths: Sequence[DeviceHealth], *, json: bool, console: Console) -> None:
    """Print what `health.device_health` found: a line per device, then sentences on each."""
    if json:
        print_json([_to_json(health) for health in healths], console)
        return
    if not healths:
        console.print(Text("no trials yet: wgtune tune --model sd-v1-5"), soft_wrap=True)
        return
    seen = {state.value for health in healths for state in health.trials}
    columns = [c for c in _COLUMNS if c.key in seen or c.key not in {state.value for state in TrialState}]
    print_rows([_row(health) for health in healths], columns, json=False, console=console)
    for health in healths:
        console.print()
        for line in sentences(health):
            console.print(Text(line), soft_wrap=not console.is_terminal)
    rows = [
        {
            "device": health.device.key,
            "kernel": one.kernel,
            "program": one.program_digest[:12],
            "crashes": one.crashes,
            "how": ", ".join(state.value for state in one.states),
            "driver": one.driver or UNNAMED_DRIVER,
        }
        for health in healths
        for one in health.quarantined
    ]
    if rows:
        console.print()
        title = f"In quarantine: not run under that driver any more, after {QUARANTINE_AFTER} crashes"
        print_rows(rows, _QUARANTINED, json=False, console=console, title=title)


def sentences(health: DeviceHealth) -> list[str]:
    """Return what is wrong with a device, and what to do about it."""
    drivers = "; ".join(
        f"{use.driver or UNNAMED_DRIVER} ({use.first:%Y-%m-%d} to {use.last:%Y-%m-%d})" for use in health.drivers
    )
    lines = [f"{health.device.key}: {drivers}"]
    if health.last_crash is not None:
        crash = health.last_crash
        first = next(iter(crash.error.splitlines()), "")
        lines.append(f"  last crash {crash.ended:%Y-%m-%d %H:%M} UTC, {crash.kernel}: {crash.state.value}: {first}")
    if health.suspended:
        lines.append(
            f"  suspended: its last {SUSPEND_AFTER} trials or more all took the worker down. Update its driver or "
            "restart the machine; the next `wgtune tune` tests it first, and one good trial lifts this."
        )
    return lines


def _row(health: DeviceHealth) -> dict[str, Any]:
    return {
        "device": health.device.key,
        "runtime": health.runtime.value,
        "health": "suspended" if health.suspended else "crashes" if health.crashes_in_a_row else "well",
        "trials": health.ended,
        **{state.value: health.trials.get(state, 0) for state in TrialState},
        "quarantined": len(health.quarantined),
    }


def _to_json(health: DeviceHealth) -> dict[str, Any]:
    derived = {"suspended": health.suspended, "crashes": health.crashes, "suspend_after": SUSPEND_AFTER}
    return {**plain(health), **derived}
