"""The list of GPUs that can be tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ...devices.device import Device
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


def print_devices(devices: Sequence[Device], *, json: bool, console: Console) -> None:
    """Print the devices in the order given, and the quirks of their drivers; as JSON with all limits and features."""
    if json:
        print_json([{**device.to_json(), "quirks": _quirks(device)} for device in devices], console)
        return
    print_rows([_row(device) for device in devices], _COLUMNS, json=False, console=console)
    for device in devices:
        for quirk in known_quirks(device.backend, device.model, device.driver):
            line = f"{device.key} {quirk.what} ({quirk.remedy})"
            console.print(Text(line), soft_wrap=not console.is_terminal)


def _quirks(device: Device) -> list[dict[str, Any]]:
    known = known_quirks(device.backend, device.model, device.driver)
    return [{"what": q.what, "reason": q.reason, "seen": q.seen, "remedy": q.remedy} for q in known]


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
