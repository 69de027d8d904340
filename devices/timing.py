"""How long dispatches take: by GPU timestamp queries where they can be trusted, else by the wall clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import wgpu

from . import gpu as layer
from .job import Sampling

# A pass shorter than this is repeated within the pass. A timestamp's own error is some microseconds at worst; a
# submission and its wait cost a tenth of a millisecond, which only the wall clock sees.
_PASS_S = {"timestamp": 1e-3, "wall": 10e-3}
_MAX_REPEAT = 1000


class Timer:
    """Runs steps on one `wgpu.GPUDevice` and times them.

    ``kind`` says what seconds are read from. It starts as ``timestamp`` where the device has the feature and falls
    back to ``wall`` for good when the driver's timestamps contradict the wall clock. ``busy_s`` sums the wall-clock
    seconds of all submissions. ``before_submit`` is called before each one.
    """

    def __init__(self, gpu: Any, before_submit: Callable[[], None] = lambda: None) -> None:
        self._gpu = gpu
        self.before_submit = before_submit
        self.busy_s = 0.0
        self._resolved = gpu.create_buffer(
            size=16,
            usage=wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.QUERY_RESOLVE,
        )
        self._period_s = layer.timestamp_period_s(gpu)
        self.kind: Literal["timestamp", "wall"] = "wall"
        self._stamps: tuple[Any, Any] | None = None
        if self._period_s is not None:
            self._stamps = (gpu.create_query_set(type="timestamp", count=2), self._resolved)
            self.kind = "timestamp"

    def run(self, steps: Sequence[layer.Step], repeat: int = 1) -> float:
        """Runs the steps ``repeat`` times in one pass, waits for the end, and returns the seconds that all took."""
        self.before_submit()
        stamps = self._stamps if self.kind == "timestamp" else None
        commands = layer.encode(self._gpu, steps, repeat, stamps)
        start = time.perf_counter()
        self._gpu.queue.submit([commands])
        ticks = layer.read(self._gpu, self._resolved, 16).view(np.uint64)  # also waits for the work
        wall_s = time.perf_counter() - start
        self.busy_s += wall_s
        if stamps is None or self._period_s is None:
            return wall_s
        seconds = (int(ticks[1]) - int(ticks[0])) * self._period_s
        if not 0 < seconds <= 1.05 * wall_s:
            self.kind = "wall"
            return wall_s
        return seconds

    def sample(self, steps: Sequence[layer.Step], sampling: Sampling, first_s: float) -> list[float]:
        """Seconds per run, sample by sample. ``first_s`` is what the first run took, which has warmed up already."""
        if sampling.give_up_s is not None and first_s > sampling.give_up_s:
            return [first_s, *(self.run(steps) for _ in range(sampling.min_samples_slow - 1))]
        for _ in range(sampling.warmup - 1):
            self.run(steps)
        repeat = self._repeat(steps, first_s)
        kind = self.kind
        samples: list[float] = []
        total_s = 0.0
        while len(samples) < sampling.max_samples:
            if len(samples) >= sampling.min_samples and total_s >= sampling.min_seconds:
                break
            seconds = self.run(steps, repeat)
            if self.kind != kind:  # two kinds of samples must not mix: begin again with the one that is left
                return self.sample(steps, sampling, first_s)
            samples.append(seconds / repeat)
            total_s += seconds
        return samples

    def _repeat(self, steps: Sequence[layer.Step], first_s: float) -> int:
        """How often the steps must run within one pass for the pass to be long enough for the clock."""
        wanted_s = _PASS_S[self.kind]
        repeat = min(_MAX_REPEAT, math.ceil(wanted_s / max(first_s, 1e-9)))
        # The first run was cold, so the estimate is mostly too low; these runs are warm-up.
        while repeat < _MAX_REPEAT and first_s < wanted_s:
            seconds = self.run(steps, repeat)
            if seconds >= wanted_s / 2:
                break
            repeat = min(_MAX_REPEAT, repeat * max(2, math.ceil(wanted_s / max(seconds, 1e-9))))
        return repeat
