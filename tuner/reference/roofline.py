"""The shortest plausible time of a kernel: a roofline with a margin.

The roofline model (Williams, Waterman and Patterson, 2009) bounds a kernel from below by its arithmetic over the
device's peak and its traffic over the device's bandwidth. Peaks are calibrated by small shaders, which need not reach
the hardware's own; FLOP counts include work that a schedule may skip (padding, masks); a gather reads a few rows of its
table; repeated runs find their data in caches. So only outputs count as traffic, and both bounds have a wide margin: a
false alarm would lose a good record, while verification still catches a wrong program that is too fast.
"""

from __future__ import annotations

from ...devices.measure.job import Peaks
from ..ir import Kernel

FLOPS_MARGIN = 4.0
"""Highest plausible multiple of the calibrated arithmetic peak."""

BYTES_MARGIN = 16.0
"""Highest plausible multiple of the calibrated streaming bandwidth; caches are that much faster than memory."""


def floor_seconds(kernel: Kernel, peaks: Peaks) -> float:
    """Return the seconds below which a run of ``kernel`` on a device with these ``peaks`` is implausible."""
    by_arithmetic = kernel.flops / (FLOPS_MARGIN * peaks.flops_per_s)
    written = sum(kernel.params[index].nbytes for index in kernel.outputs)
    by_traffic = written / (BYTES_MARGIN * peaks.bytes_per_s)
    return max(by_arithmetic, by_traffic)
