"""How long dispatches take: by GPU timestamp queries where they can be trusted, else by the wall clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import wgpu

from ..medians import median_error, median_interval
from ..states import CacheState
from . import gpu as layer
from .cold import flushing_step
from .job import Sampling

# A pass shorter than this is repeated within the pass. A timestamp's own error is some microseconds at worst; a
# submission and its wait cost a tenth of a millisecond, which only the wall clock sees.
_PASS_S = {"timestamp": 1e-3, "wall": 10e-3}
_MAX_REPEAT = 1000

_COLD_TICKS = 100
"""Ticks of the timestamp clock that cold runs take together, for their mean to be good to a hundredth."""
_MAX_COLD_RUNS = 16


@dataclass(frozen=True)
class Samples:
    """Seconds per run: ``warmup_s`` before anything counted, then ``samples_s``; each in the order taken."""

    warmup_s: tuple[float, ...]
    samples_s: tuple[float, ...]


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
            size=16 * _MAX_COLD_RUNS,
            usage=wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.QUERY_RESOLVE,
        )
        self._period_s = layer.timestamp_period_s(gpu)
        self.kind: Literal["timestamp", "wall"] = "wall"
        self._stamps: Any = None
        if self._period_s is not None:
            self._stamps = gpu.create_query_set(type="timestamp", count=2 * _MAX_COLD_RUNS)
            self.kind = "timestamp"
        self._flush: layer.Step | None = None

    def run(self, steps: Sequence[layer.Step], repeat: int = 1) -> float:
        """Runs the steps ``repeat`` times in one pass, waits for the end, and returns the seconds that all took."""
        encoder = self._gpu.create_command_encoder()
        self._encode_pass(encoder, steps, repeat, 0)
        return self._submit(encoder, 1)

    def run_cold(self, steps: Sequence[layer.Step], count: int = 1) -> float:
        """Runs the steps ``count`` times, after emptying the caches before each, which is not part of the seconds.

        Where the wall clock is all there is, a run's submission is part of them, about a tenth of a millisecond.
        """
        if self._flush is None:
            self._flush = flushing_step(self._gpu)
        if self.kind == "wall":
            return sum(self._flush_and_run(steps) for _ in range(count))
        encoder = self._gpu.create_command_encoder()
        for index in range(count):
            self._encode_pass(encoder, [self._flush], 1, None)
            self._encode_pass(encoder, steps, 1, index)
        return self._submit(encoder, count)

    def sample(self, steps: Sequence[layer.Step], sampling: Sampling, first_s: float) -> Samples:
        """Samples as ``sampling`` wants them; ``first_s`` is what the first run took, which is the first warm-up."""
        warmup = [first_s]
        cold = sampling.cache is CacheState.COLD
        if sampling.give_up_s is not None and first_s > sampling.give_up_s:
            run = self.run_cold if cold else self.run
            return Samples(tuple(warmup), tuple(run(steps) for _ in range(sampling.min_samples_slow)))
        kind = self.kind
        count = self._cold_runs(first_s) if cold else self._repeat(steps, first_s, warmup)

        def measure() -> float:
            seconds = self.run_cold(steps, count) if cold else self.run(steps, count)
            return seconds / count

        warmup += (measure() for _ in range(sampling.warmup))
        samples: list[float] = []
        begun_s = self.busy_s
        while not _enough(samples, self.busy_s - begun_s, sampling):
            samples.append(measure())
        if self.kind != kind:  # two kinds of samples must not mix: begin again with the one that is left
            return self.sample(steps, sampling, first_s)
        return Samples(tuple(warmup), tuple(samples))

    def _repeat(self, steps: Sequence[layer.Step], first_s: float, warmup: list[float]) -> int:
        """How often the steps must run within one pass for the pass to be long enough for the clock."""
        wanted_s = _PASS_S[self.kind]
        repeat = min(_MAX_REPEAT, math.ceil(wanted_s / max(first_s, 1e-9)))
        # The first run was cold, so the estimate is mostly too low.
        while repeat < _MAX_REPEAT and first_s < wanted_s:
            seconds = self.run(steps, repeat)
            warmup.append(seconds / repeat)
            if seconds >= wanted_s / 2:
                break
            repeat = min(_MAX_REPEAT, repeat * max(2, math.ceil(wanted_s / max(seconds, 1e-9))))
        return repeat

    def _cold_runs(self, first_s: float) -> int:
        """How many cold runs make a sample. The wall clock is good enough for one, as far as it is good at all."""
        if self._period_s is None or self.kind == "wall":
            return 1
        return min(_MAX_COLD_RUNS, math.ceil(_COLD_TICKS * self._period_s / max(first_s, 1e-9)))

    def _flush_and_run(self, steps: Sequence[layer.Step]) -> float:
        assert self._flush is not None
        self.run([self._flush])
        return self.run(steps)

    def _encode_pass(self, encoder: Any, steps: Sequence[layer.Step], repeat: int, index: int | None) -> None:
        """Appends a pass, stamped as the submission's ``index``-th where timestamps are used; None is never."""
        stamps = (self._stamps, 2 * index) if self.kind == "timestamp" and index is not None else None
        layer.encode_pass(encoder, steps, repeat, stamps)

    def _submit(self, encoder: Any, passes: int) -> float:
        """Runs what is encoded; the seconds of its ``passes`` stamped passes together."""
        stamped = self.kind == "timestamp"
        if stamped:
            encoder.resolve_query_set(self._stamps, 0, 2 * passes, self._resolved, 0)
        commands = encoder.finish()
        self.before_submit()
        start = time.perf_counter()
        self._gpu.queue.submit([commands])
        ticks = layer.read(self._gpu, self._resolved, 16 * passes).view(np.uint64)  # also waits for the work
        wall_s = time.perf_counter() - start
        self.busy_s += wall_s
        if not stamped or self._period_s is None:
            return wall_s
        spans = [(int(end) - int(begin)) * self._period_s for begin, end in zip(ticks[::2], ticks[1::2], strict=True)]
        if min(spans) <= 0 or sum(spans) > 1.05 * wall_s:
            self.kind = "wall"
            return wall_s
        return sum(spans)


def _enough(samples: Sequence[float], busy_s: float, sampling: Sampling) -> bool:
    """Whether ``samples``, which took ``busy_s`` with all that went with them, are what ``sampling`` wants."""
    if len(samples) < sampling.min_samples:
        return False
    if len(samples) >= sampling.max_samples or busy_s >= sampling.max_seconds:
        return True
    interval = median_interval(samples)
    if interval is None:
        return False
    if sampling.rival_s is not None and interval.low > sampling.rival_s:
        return True
    return busy_s >= sampling.min_seconds and median_error(samples) <= sampling.precision
