"""Times of a bundle's stages as they run, beside the sum of their dispatches run one by one.

What was tuned is the time of each kernel alone; what a visitor waits for is the whole. The two are timed in the same
process, in turns, so that whatever else the machine does concerns both.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

from ...devices.quirks import quirks_of
from ...devices.webgpu import gpu as layer
from ...devices.webgpu.cpu_affinity import give_each_thread_a_core
from ...devices.webgpu.peaks import measure_launch_s
from ...devices.webgpu.timing import Timer
from .webgpu_runtime import WebGpuRuntime

PARTS = {"clip": ("clip",), "unet": ("schedule", "unet", "guide"), "vae": ("schedule", "vae", "image")}
"""The stages that run together, by the network that takes most of their time."""

_MOST_STAMPED = 2048
"""Dispatches that one set of 4096 timestamp queries, WebGPU's largest, can time."""


@dataclass(frozen=True)
class StageTime:
    """Medians over several rounds, in seconds, of one part of a picture: the text encoder, a step, or the decoder.

    Attributes:
        stage: the network.
        dispatches: dispatches of one run.
        run_s: one run as the runtime does it, by the wall clock: one submission, until it is done.
        alone_s: sum of its dispatches, each repeated by itself with warm caches, as the tuner measures kernels.
        gpu_s: one run by the GPU's timestamps; None where it has none.
        in_turn_s: sum of its dispatches by timestamps around each within a whole run, so with the caches as the one
            before left them; None without timestamps. A pass of its own for each makes this larger than ``gpu_s``
            where passes are dear.
        launch_s: what launches of this number cost on the device by themselves; part of all the others.
    """

    stage: str
    dispatches: int
    run_s: float
    alone_s: float
    gpu_s: float | None
    in_turn_s: float | None
    launch_s: float

    @property
    def ratio(self) -> float:
        """The sum of the dispatches alone over the whole: 1 where nothing is lost between them."""
        return self.alone_s / self.run_s


def measure_stages(
    runtime: WebGpuRuntime, rounds: int = 5, progress: Callable[[float], None] = lambda done: None
) -> list[StageTime]:
    """Time each part of a picture as a whole and dispatch by dispatch, in turns.

    Buffers hold what the runs before left in them; times of these networks do not depend on values.

    Args:
        runtime: a bundle on a device, opened with `WebGpuRuntime.open_for_timing`.
        rounds: how often each is timed.
        progress: receives the share that is done, from 0 to 1.

    Raises:
        DeviceError: the GPU fails.
    """
    gpu = runtime.gpu
    if quirks_of(runtime.device).pinned_threads:
        give_each_thread_a_core(lambda: [runtime.run(*PARTS["unet"]) for _ in range(3)] and None)
    timer = Timer(gpu)
    stamps = _Stamps(gpu) if timer.kind == "timestamp" else None
    launch_s = measure_launch_s(timer, gpu)
    parts = {name: _Part(runtime, timer, stamps, stages) for name, stages in PARTS.items()}
    for number in range(rounds):
        for index, part in enumerate(parts.values()):
            part.time_once()
            progress((number + (index + 1) / len(parts)) / rounds)
    return [part.result(name, launch_s, timer.kind == "timestamp") for name, part in parts.items()]


class _Part:
    """One part of a picture, and the times taken of it."""

    def __init__(self, runtime: WebGpuRuntime, timer: Timer, stamps: _Stamps | None, stages: Sequence[str]) -> None:
        self._runtime, self._timer, self._stamps, self._stages = runtime, timer, stamps, stages
        self._steps = runtime.steps(*stages)
        # The same shader over the same grid takes the same time, whatever its buffers.
        self._count = Counter((id(step.pipeline), step.grid) for step in self._steps)
        self._distinct = {(id(step.pipeline), step.grid): step for step in self._steps}
        self._repeats: dict[Any, int] = {}
        self._run_s: list[float] = []
        self._gpu_s: list[float] = []
        self._in_turn_s: list[float] = []
        self._alone_s: dict[Any, list[float]] = {key: [] for key in self._distinct}
        runtime.run(*stages)

    def time_once(self) -> None:
        for key, step in self._distinct.items():
            self._alone_s[key].append(self._alone(key, step))
        self._runtime.run(*self._stages)  # the caches hold what a run leaves there, not the last dispatch's
        self._run_s.append(self._runtime.run(*self._stages))
        self._gpu_s.append(self._timer.run(self._steps))
        if self._stamps is not None and len(self._steps) <= _MOST_STAMPED:
            self._in_turn_s.append(self._stamps.sum_s(self._steps))

    def _alone(self, key: Any, step: layer.Step) -> float:
        if key not in self._repeats:
            first_s = self._timer.run([step])
            self._repeats[key] = max(1, min(1000, math.ceil(self._timer.pass_s[self._timer.kind] / max(first_s, 1e-7))))
        repeats = self._repeats[key]
        return self._timer.run([step], repeats) / repeats

    def result(self, name: str, launch_s: float, stamped: bool) -> StageTime:
        return StageTime(
            stage=name,
            dispatches=len(self._steps),
            run_s=statistics.median(self._run_s),
            alone_s=sum(self._count[key] * statistics.median(times) for key, times in self._alone_s.items()),
            gpu_s=statistics.median(self._gpu_s) if stamped else None,
            in_turn_s=statistics.median(self._in_turn_s) if stamped and self._in_turn_s else None,
            launch_s=launch_s * len(self._steps),
        )


class _Stamps:
    """Timestamps around each of many dispatches."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._period_s = layer.timestamp_period_s(gpu) or 0.0
        self._queries = gpu.create_query_set(type="timestamp", count=2 * _MOST_STAMPED)
        self._resolved = gpu.create_buffer(
            size=16 * _MOST_STAMPED, usage=wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.QUERY_RESOLVE
        )

    def sum_s(self, steps: Sequence[layer.Step]) -> float:
        """Run ``steps`` in order, each in a pass of its own; return the seconds of all passes together."""
        encoder = self._gpu.create_command_encoder()
        for index, step in enumerate(steps):
            layer.encode_pass(encoder, [step], 1, (self._queries, 2 * index))
        encoder.resolve_query_set(self._queries, 0, 2 * len(steps), self._resolved, 0)
        self._gpu.queue.submit([encoder.finish()])
        ticks = layer.read(self._gpu, self._resolved, 16 * len(steps)).view(np.uint64).astype(np.int64)
        return float(np.sum(ticks[1::2] - ticks[::2])) * self._period_s
