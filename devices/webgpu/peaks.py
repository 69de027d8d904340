"""Highest throughput of a device opened through wgpu, and what a dispatch costs on it."""

from __future__ import annotations

from typing import Any

from ..measure.job import Peaks
from ..measure.peak_programs import (
    ARITHMETIC,
    ARITHMETIC_GROUP_BYTES,
    COPY,
    COPY_GROUP_BYTES,
    LAUNCH_BYTES,
    LAUNCHES,
    SAMPLING,
    find_launch_s,
    find_peaks,
)
from ..measure.phases import JobPhase, Notify
from . import gpu as layer
from .timing import Timer


def measure_peaks(gpu: Any, notify: Notify) -> Peaks:
    """Measure the peaks of an open `wgpu.GPUDevice`; takes about a second, on a software adapter as well."""
    timer = Timer(gpu, lambda: notify(JobPhase.RUNNING))
    notify(JobPhase.COMPILING)
    arithmetic = layer.make_pipeline(gpu, ARITHMETIC, "main")
    copy = layer.make_pipeline(gpu, COPY, "main")
    launches = _launching_steps(gpu)

    def best_s(pipeline: layer.Pipeline, sizes: list[int], groups: int) -> float:
        buffers = [layer.storage_buffer(gpu, nbytes) for nbytes in sizes]
        group = layer.bind(gpu, pipeline, [(buffer, 0, buffer.size) for buffer in buffers])
        steps = [layer.Step(pipeline, group, (groups, 1, 1))]
        seconds = min(timer.sample(steps, SAMPLING, timer.run(steps)).samples_s)
        for buffer in buffers:
            buffer.destroy()
        return seconds

    return find_peaks(
        lambda groups: best_s(arithmetic, [groups * ARITHMETIC_GROUP_BYTES], groups),
        lambda nbytes: best_s(copy, [nbytes, nbytes], nbytes // COPY_GROUP_BYTES),
        lambda repeats: timer.run(launches, repeats),
    )


def measure_launch_s(timer: Timer, gpu: Any) -> float:
    """Return the seconds that one more dispatch adds to a pass on an open `wgpu.GPUDevice`."""
    launches = _launching_steps(gpu)
    return find_launch_s(lambda repeats: timer.run(launches, repeats))


def _launching_steps(gpu: Any) -> list[layer.Step]:
    """Return the dispatches of `LAUNCHES`, each of which reads what the other wrote."""
    pair = [layer.storage_buffer(gpu, LAUNCH_BYTES) for _ in LAUNCHES]
    steps = []
    for source, buffers in zip(LAUNCHES, (pair, pair[::-1]), strict=True):
        pipeline = layer.make_pipeline(gpu, source, "main")
        group = layer.bind(gpu, pipeline, [(buffer, 0, LAUNCH_BYTES) for buffer in buffers])
        steps.append(layer.Step(pipeline, group, (1, 1, 1)))
    return steps
