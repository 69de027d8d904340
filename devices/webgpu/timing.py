"""Sampler over wgpu: GPU timestamp queries where they agree with the wall clock, else the wall clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import wgpu

from ..measure.sampling import Sampler
from . import gpu as layer

_COLD_TICKS = 100
"""Ticks of the timestamp clock that the cold runs of a sample take at least, for a resolution of 1 % of their mean."""
_MAX_COLD_RUNS = 16

_FLUSH_BYTES = 128 << 20
"""More than the last-level caches of GPUs of 2026 (NVIDIA Blackwell's 126 MB; AMD's 128 MB at most), and what every
WebGPU adapter can bind."""

_FLUSH_THREADS = 256

_FLUSH = f"""
@group(0) @binding(0) var<storage, read_write> memory: array<vec4<u32>>;
@compute @workgroup_size({_FLUSH_THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ memory[id.x] = memory[id.x] + vec4<u32>(1u); }}
"""


class Timer(Sampler[Sequence[layer.Step]]):
    """Runs steps on one `wgpu.GPUDevice` and times them.

    ``kind`` is ``timestamp`` where the device has the feature. It changes to ``wall`` for good when the driver's
    timestamps contradict the wall clock. That is observed on the open device and assumed of no driver, so it is no
    quirk.
    """

    # A timestamp's error is some microseconds at worst. The wall clock includes submission and waiting, 0.1 ms.
    pass_s: ClassVar[Mapping[str, float]] = {"timestamp": 1e-3, "wall": 10e-3}

    def __init__(self, gpu: Any, before_submit: Callable[[], None] = lambda: None) -> None:
        super().__init__("wall")
        self._gpu = gpu
        self.before_submit = before_submit
        self._resolved = gpu.create_buffer(
            size=16 * _MAX_COLD_RUNS,
            usage=wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.QUERY_RESOLVE,
        )
        self._period_s = layer.timestamp_period_s(gpu)
        self._stamps: Any = None
        if self._period_s is not None:
            self._stamps = gpu.create_query_set(type="timestamp", count=2 * _MAX_COLD_RUNS)
            self.kind = "timestamp"
        self._flush: layer.Step | None = None

    def run(self, steps: Sequence[layer.Step], repeat: int = 1) -> float:
        """As `Sampler.run`."""
        encoder = self._gpu.create_command_encoder()
        self._encode_pass(encoder, steps, repeat, 0)
        return self._submit(encoder, 1)

    def run_cold(self, steps: Sequence[layer.Step], count: int = 1) -> float:
        """As `Sampler.run_cold`.

        With the wall clock, the seconds include a submission per run, about 0.1 ms.
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

    def cold_runs(self, first_s: float) -> int:
        """As `Sampler.cold_runs`: one by the wall clock, whose error more runs do not reduce."""
        if self._period_s is None or self.kind == "wall":
            return 1
        return min(_MAX_COLD_RUNS, math.ceil(_COLD_TICKS * self._period_s / max(first_s, 1e-9)))

    def _flush_and_run(self, steps: Sequence[layer.Step]) -> float:
        assert self._flush is not None
        self.run([self._flush])
        return self.run(steps)

    def _encode_pass(self, encoder: Any, steps: Sequence[layer.Step], repeat: int, index: int | None) -> None:
        """Append a pass, with the submission's ``index``-th pair of timestamps where these are used; None for none."""
        stamps = (self._stamps, 2 * index) if self.kind == "timestamp" and index is not None else None
        layer.encode_pass(encoder, steps, repeat, stamps)

    def _submit(self, encoder: Any, passes: int) -> float:
        """Run what is encoded; return the seconds of its ``passes`` stamped passes together."""
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


def flushing_step(gpu: Any) -> layer.Step:
    """Return a step that evicts the caches: it reads and writes 128 MiB, or as much as can be bound."""
    nbytes = min(_FLUSH_BYTES, gpu.limits["max-storage-buffer-binding-size"])
    nbytes -= nbytes % (16 * _FLUSH_THREADS)
    pipeline = layer.make_pipeline(gpu, _FLUSH, "main")
    group = layer.bind(gpu, pipeline, [(layer.storage_buffer(gpu, nbytes), 0, nbytes)])
    return layer.Step(pipeline, group, (nbytes // (16 * _FLUSH_THREADS), 1, 1))
