"""Gives each thread of an open device's driver a core of its own, where a quirk asks for that."""

from __future__ import annotations

from typing import Any

from ..device import Device
from ..measure.peak_programs import ARITHMETIC, ARITHMETIC_GROUP_BYTES
from ..quirks import quirks_of
from . import gpu as layer
from .cpu_affinity import give_each_thread_a_core

# A square: the device may have been opened with limits that allow few workgroups in a dimension. Rows write the same.
_BUSY_GRID, _BUSY_RUNS = (16, 16, 1), 10


def pin_driver_threads(device: Device, gpu: Any) -> None:
    """Pin the threads with which ``device``, open as ``gpu``, computes; nothing without `Quirks.pinned_threads`."""
    if quirks_of(device).pinned_threads:
        give_each_thread_a_core(lambda: _compute(gpu))


def _compute(gpu: Any) -> None:
    """Keep all of the device busy for some hundredths of a second."""
    buffer = layer.storage_buffer(gpu, _BUSY_GRID[0] * ARITHMETIC_GROUP_BYTES)
    pipeline = layer.make_pipeline(gpu, ARITHMETIC, "main")
    group = layer.bind(gpu, pipeline, [(buffer, 0, buffer.size)])
    step = layer.Step(pipeline, group, _BUSY_GRID)
    for _ in range(_BUSY_RUNS):
        gpu.queue.submit([layer.encode(gpu, [step])])
        layer.wait(gpu)
    buffer.destroy()
