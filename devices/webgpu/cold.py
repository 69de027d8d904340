"""Emptying a GPU's caches between runs, by writing more than any of them holds."""

from __future__ import annotations

from typing import Any

from . import gpu as layer

_FLUSH_BYTES = 128 << 20
"""More than the last-level caches of GPUs of 2026 (NVIDIA Blackwell's 126 MB; AMD's 128 MB at most), and what every
WebGPU adapter can bind."""

_THREADS = 256

_FLUSH = f"""
@group(0) @binding(0) var<storage, read_write> memory: array<vec4<u32>>;
@compute @workgroup_size({_THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ memory[id.x] = memory[id.x] + vec4<u32>(1u); }}
"""


def flushing_step(gpu: Any) -> layer.Step:
    """A step on an open `wgpu.GPUDevice` that reads and writes 128 MiB, or as much as can be bound."""
    nbytes = min(_FLUSH_BYTES, gpu.limits["max-storage-buffer-binding-size"])
    nbytes -= nbytes % (16 * _THREADS)
    pipeline = layer.make_pipeline(gpu, _FLUSH, "main")
    group = layer.bind(gpu, pipeline, [(layer.storage_buffer(gpu, nbytes), 0, nbytes)])
    return layer.Step(pipeline, group, (nbytes // (16 * _THREADS), 1, 1))
