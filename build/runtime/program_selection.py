"""Which of a bundle's programs a device runs: the first whose limits and features it has (docs/bundle.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...support.enums import ComputePrecision
from ...support.errors import DeviceError, UsageError
from ..format.manifest import Requirements
from ..format.reader import Bundle, BundleProgram

if TYPE_CHECKING:
    from ...devices.device import Device


def select_program(bundle: Bundle, device: Device, compute: ComputePrecision | None = None) -> BundleProgram:
    """Return the first program that ``device`` can run, of those for ``compute`` where that is given.

    Raises:
        BundleError: the bundle has none for ``compute``.
        DeviceError: the device lacks a limit or feature of each, with both values for the last one.
    """
    candidates = bundle.programs_of(compute)
    runnable = runnable_programs(candidates, device)
    if runnable:
        return runnable[0]
    if len(candidates) < len(bundle.programs):
        hint = "leave out the choice of arithmetic: the bundle has another program"
    else:
        hint = f"this bundle was built for tier {bundle.manifest.tier!r}; build one with a smaller tier or image"
    raise DeviceError("; ".join(shortfalls(candidates[-1].info.requires, device)), hint)


def find_precision(name: ComputePrecision | str | None) -> ComputePrecision | None:
    """Return the precision with this name, None for None; UsageError lists the known ones."""
    try:
        return None if name is None else ComputePrecision(name)
    except ValueError:
        known = ", ".join(one.value for one in ComputePrecision)
        raise UsageError(f"there is no precision {name!r} between kernels", f"known: {known}") from None


def runnable_programs(programs: tuple[BundleProgram, ...], device: Device) -> tuple[BundleProgram, ...]:
    """Return the programs that ``device`` can run."""
    return tuple(one for one in programs if not shortfalls(one.info.requires, device))


def shortfalls(needs: Requirements, device: Device) -> list[str]:
    """Return a sentence for each limit and feature of ``needs`` that ``device`` lacks, with both values."""
    short = [
        f"{name}: the bundle needs {needed}, {device.key} has {device.limits[name]}"
        for name, needed in needs.limits.items()
        if device.limits.get(name, needed) < needed
    ]
    return short + [f"{device.key} lacks the feature {name}" for name in needs.features if name not in device.features]
