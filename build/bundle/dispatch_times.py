"""How long a dispatch may take, and programs in which none takes longer.

Windows resets a GPU that does not answer for two seconds (Microsoft, "Timeout Detection and Recovery", TdrDelay), and a
page then loses its device. A dispatch cannot be interrupted on every GPU, so a long one runs in slices of its grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ...database.schema.records import DeviceInfo
from ...tuner.ir import Kernel
from ..format.manifest import DispatchesInfo
from .program_choice import ProgramChoice

LONGEST_S = 1.0
"""Seconds that a dispatch may take: half of the time after which Windows resets a GPU."""

SLOW_FLOPS = 50e9
SLOW_BYTES = 10e9
"""FLOPs and bytes a second that a slow GPU is taken to reach: an eighth and a third of the peaks of an Intel HD
Graphics 520 (403 GFLOP/s, 34 GB/s), the smallest that current drivers run WebGPU on."""


def estimate_s(kernel: Kernel, choice: ProgramChoice, device: DeviceInfo | None) -> float:
    """Return the seconds that one launch of a kernel takes: its record's, or a slow GPU's where that is longer.

    Visitors have other GPUs than the one that a bundle is tuned for. A device that runs on the CPU is not reset.
    """
    slow = max(kernel.flops / SLOW_FLOPS, kernel.nbytes / SLOW_BYTES)
    if device is None or device.software or choice.own is None:
        return slow
    return max(slow, choice.own.latency_s)


def limit_dispatches(
    kernels: Mapping[str, Kernel], choices: Mapping[str, ProgramChoice], device: DeviceInfo | None
) -> tuple[dict[str, ProgramChoice], DispatchesInfo]:
    """Return ``choices`` with programs in which no dispatch takes longer than `LONGEST_S`, and what was done.

    A program's launch may be several dispatches; as nobody knows how they share its time, each is taken to need all.
    A grid of fewer workgroups than slices remains too long, which the result tells.
    """
    from ...tuner.codegen.grid_slices import slice_dispatches

    limited: dict[str, ProgramChoice] = {}
    sliced, longest = 0, 0.0
    for kernel_id, choice in choices.items():
        seconds = estimate_s(kernels[kernel_id], choice, device)
        slices = math.ceil(seconds / LONGEST_S)
        if slices > 1:
            extents = [max(dispatch.grid) for dispatch in choice.program.dispatches]
            seconds *= max(math.ceil(extent / min(slices, extent)) / extent for extent in extents)
            choice = replace(choice, program=slice_dispatches(choice.program, slices))
            sliced += 1
        longest = max(longest, seconds)
        limited[kernel_id] = choice
    return limited, DispatchesInfo(longest, sliced)
