"""What the cost model knows of a kernel, a point of its design space and a device: numbers by name, absent if unknown.

All of it is known before a schedule is replayed. Counts and sizes are logarithms to base 2, because ratios matter. The
same name means the same for every rule and for MetaSchedule's sketches, so that what one kernel teaches helps with
another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...devices.program import AnyProgram, Program
from ...devices.quirks import Quirks
from ..ir import Kernel
from ..schedule_rules import RuleSpace
from ..schedule_rules.rule import Quantities

Features = dict[str, float]

VERSION = 1
"""Of the features of kernels and points. What was stored under another version is not compared with today's."""

SIZE = "program.size"
"""Length of the program's text: known once it is lowered, so nothing that a schedule can be ranked by beforehand."""

_RATIOS = frozenset({"loads", "staged", "cost"})
"""Quantities that are no counts: their logarithm may be negative."""

_SMALLEST = 2.0**-40


def kernel_features(kernel: Kernel, rules: list[RuleSpace]) -> Features:
    """Return the features of a kernel; ``rules`` are the spaces of the rules that apply to it."""
    written = sum(math.prod(kernel.params[index].shape) for index in kernel.outputs)
    found = {
        "kernel.flops": _log(kernel.flops),
        "kernel.bytes": _log(kernel.nbytes),
        "kernel.intensity": _ratio(kernel.flops / max(1, kernel.nbytes)),
        "kernel.outputs": _log(written),
    }
    for space in rules:
        found[f"kernel.is.{space.rule}"] = 1.0
        for name, size in space.sizes.items():
            found.setdefault(f"kernel.{name}", _log(size))
    return found


def quantity_features(quantities: Quantities) -> Features:
    """Return the features of what a schedule does with a GPU."""
    found = {
        f"point.{name}": _ratio(value) if name in _RATIOS else _log(value)
        for name, value in asdict(quantities).items()
        if value is not None
    }
    if quantities.threads is not None and quantities.groups is not None:
        found["point.lanes"] = _log(quantities.threads * quantities.groups)
    return found


def value_features(values: Mapping[str, int]) -> Features:
    """Return the features of a rule's parameters."""
    return {f"value.{name}": _log(value) for name, value in values.items()}


def program_features(program: AnyProgram | None) -> Features:
    """Return the feature `SIZE` of a program in WGSL."""
    if not isinstance(program, Program):
        return {}
    return {SIZE: _log(sum(len(shader.source) for shader in program.shaders))}


def device_features(
    limits: Mapping[str, Any], software: bool, quirks: Quirks, calibration: Mapping[str, Any] | None
) -> Features:
    """Return the features of a device.

    Args:
        limits: Bytes or counts, by WebGPU's names.
        software: Whether a CPU does the work.
        quirks: Of its driver.
        calibration: What a session measured of it, as the fields of `Peaks`; None where none did.
    """
    measured = {name: value for name, value in (calibration or {}).items() if _positive(value)}
    found = {
        "device.software": float(software),
        "device.at_first_dispatch": float(quirks.compiles_at_first_dispatch),
        "device.pinned": float(quirks.pinned_threads),
        "device.avoids_shared": float(quirks.avoids_workgroup_memory),
    }
    for name, limit in (
        ("threads", "maxComputeInvocationsPerWorkgroup"),
        ("shared_bytes", "maxComputeWorkgroupStorageSize"),
    ):
        if _positive(limits.get(limit)):
            found[f"device.{name}"] = _log(limits[limit])
    for name, asked in (("iterations", quirks.max_thread_iterations), ("lanes", quirks.lanes), ("wave", quirks.wave)):
        if asked is not None:
            found[f"device.{name}"] = _log(asked)
    for name in ("flops_per_s", "bytes_per_s", "launch_s"):
        if name in measured:
            found[f"device.{name}"] = _ratio(measured[name])
    if "flops_per_s" in measured and "bytes_per_s" in measured:
        found["device.balance"] = _ratio(measured["flops_per_s"] / measured["bytes_per_s"])
    return found


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _log(value: float) -> float:
    return round(math.log2(1 + value), 4)


def _ratio(value: float) -> float:
    return round(math.log2(max(_SMALLEST, value)), 4)
