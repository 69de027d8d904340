"""The list of GPUs that can be tuned, and of chips that programs can only be compiled for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ...devices.device import Device
from ...devices.offline.chips import FoundChip
from ...devices.quirks import known_quirks
from ...support.formatting import size
from ..tables import Column, print_json, print_rows

_COLUMNS = [
    Column("key", "device"),
    Column("model", "model", flexible=True),
    Column("kind", "kind"),
    Column("vendor", "vendor", drop=5),
    Column("architecture", "architecture", drop=4),
    Column("driver", "driver", drop=6, flexible=True),
    Column("runtime", "runtime", drop=3),
    Column("threads", "threads", "right", drop=7),
    Column("shared", "workgroup", "right", size, drop=8),
    Column("binding", "binding", "right", size, drop=9),
    Column("f16", "f16", drop=2),
    Column("subgroups", "subgroups", drop=2),
    Column("timer", "timer", drop=1),
]


_CHIPS = [
    Column("key", "compile only: no time is ever measured"),
    Column("model", "chip of", flexible=True),
    Column("architecture", "architecture"),
    Column("driver", "compiler", drop=1),
]


def print_devices(
    devices: Sequence[Device],
    chips: Sequence[FoundChip] = (),
    missing: Sequence[str] = (),
    *,
    json: bool,
    console: Console,
) -> None:
    """Print the devices in the order given, the quirks of their drivers, and the compile-only chips or why not.

    With ``json`` they are one list: devices with all their limits and features, and chips with ``compile_only``.
    """
    rows = [_chip_row(chip) for chip in chips]
    if json:
        print_json([*({**device.to_json(), "quirks": _quirks(device)} for device in devices), *rows], console)
        return
    print_rows([_row(device) for device in devices], _COLUMNS, json=False, console=console)
    for device in devices:
        for quirk in known_quirks(device.backend, device.model, device.driver):
            line = f"{device.key} {quirk.what} ({quirk.remedy})"
            console.print(Text(line), soft_wrap=not console.is_terminal)
    if rows:
        console.print()
        print_rows(rows, _CHIPS, json=False, console=console)
    for sentence in missing:
        console.print()
        console.print(Text(f"Compile only: {sentence}", style="dim"), soft_wrap=True)


def _quirks(device: Device) -> list[dict[str, Any]]:
    known = known_quirks(device.backend, device.model, device.driver)
    return [{"what": q.what, "reason": q.reason, "seen": q.seen, "remedy": q.remedy} for q in known]


def _chip_row(found: FoundChip) -> dict[str, Any]:
    return {
        "key": found.chip.key,
        "vendor": found.chip.vendor,
        "model": found.chip.products,
        "architecture": found.chip.architecture,
        "driver": f"RADV, {found.driver}" if found.chip.driver == "radv" else found.driver,
        "compile_only": True,
    }


def _row(device: Device) -> dict[str, Any]:
    return {
        "key": device.key,
        "model": device.model,
        "kind": "software" if device.software else device.adapter_type,
        "vendor": device.vendor,
        "architecture": device.architecture,
        "driver": device.driver,
        "runtime": device.runtime.value,
        "threads": device.limits.get("maxComputeInvocationsPerWorkgroup"),
        "shared": device.limits.get("maxComputeWorkgroupStorageSize"),
        "binding": device.limits.get("maxStorageBufferBindingSize"),
        "f16": "yes" if "shader-f16" in device.features else "no",
        "subgroups": "yes" if "subgroups" in device.features else "no",
        "timer": "timestamps" if "timestamp-query" in device.features else "wall clock",
    }
