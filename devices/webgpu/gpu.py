"""Functions over wgpu for all that runs WGSL natively: adapters, devices, pipelines, buffers, compute passes.

Raises wgpu's own errors (`wgpu.GPUValidationError`, `wgpu.GPUOutOfMemoryError`, …), and `DeviceError` for what the user
can change. Keeps no state but the process-wide wgpu instance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu

from ...support.enums import Runtime
from ...support.errors import DeviceError
from ..device import Device
from ..naming import device_key, driver_name, model_and_architecture, vendor_name
from ..wgsl_bindings import binding_types
from .c_types import use_quick_lookups

# WebGPU's limits that concern compute work (W3C WebGPU, section 3.6.2).
_LIMITS = (
    "maxBindGroups",
    "maxBindingsPerBindGroup",
    "maxBufferSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX",
    "maxComputeWorkgroupSizeY",
    "maxComputeWorkgroupSizeZ",
    "maxComputeWorkgroupStorageSize",
    "maxComputeWorkgroupsPerDimension",
    "maxStorageBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
    "maxUniformBufferBindingSize",
    "maxUniformBuffersPerShaderStage",
    "minStorageBufferOffsetAlignment",
    "minUniformBufferOffsetAlignment",
)
# WebGPU's name → wgpu's. Asked for "subgroups", wgpu 0.32 returns a device without them.
_FEATURES = {"shader-f16": "shader-f16", "subgroups": "subgroup", "timestamp-query": "timestamp-query"}
_BACKENDS = {"Vulkan": "vulkan", "Metal": "metal", "D3D12": "d3d12", "OpenGL": "gl", "OpenGLES": "gl"}
_OTHER = "choose another device (`wgtune devices` lists them), or build for a tier that asks for less"
_INSTANCE_BACKENDS = {"vulkan": "Vulkan", "metal": "Metal", "d3d12": "DX12", "gl": "GL"}
_TYPES = {"DiscreteGPU": "discrete", "IntegratedGPU": "integrated", "VirtualGPU": "virtual", "CPU": "cpu"}

Range = tuple[Any, int, int]
"""A `wgpu.GPUBuffer`, a byte offset and a byte size."""


@dataclass(frozen=True)
class Pipeline:
    """A compute pipeline and the layout of its bind group 0 (wgpu objects), with the type of each binding."""

    handle: Any
    layout: Any
    types: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One dispatch, ready to encode: pipeline, bind group (a wgpu object) and workgroups in x, y, z."""

    pipeline: Pipeline
    group: Any
    grid: tuple[int, int, int]


def list_adapters() -> list[tuple[Device, Any]]:
    """Return every wgpu adapter of this machine with its description, in the order that wgpu reports them."""
    # Mesa's device-select layer prints to stderr where there is no desktop session. It is not needed: the adapter is
    # chosen here.
    os.environ.setdefault("NODEVICE_SELECT", "1")
    use_quick_lookups()
    found: list[tuple[Device, Any]] = []
    for adapter in wgpu.gpu.enumerate_adapters_sync():
        info = adapter.info
        backend = _BACKENDS.get(info["backend_type"], info["backend_type"].lower())
        model, architecture = model_and_architecture(info["device"])
        kind = _TYPES.get(info["adapter_type"], "unknown")
        device = Device(
            key=device_key(backend, model, architecture),
            backend=backend,
            vendor=vendor_name(info["vendor_id"], info["vendor"]),
            architecture=info["architecture"] or architecture,
            model=model,
            driver=driver_name(info["description"], info["vendor"]),
            adapter_type=kind,
            software=kind == "cpu",
            limits={name: adapter.limits[_hyphenated(name)] for name in _LIMITS},
            features=tuple(name for name, native in _FEATURES.items() if native in adapter.features),
            runtime=Runtime.WGPU,
            index=sum(other.backend == backend for other, _ in found),
        )
        found.append((device, adapter))
    return found


def open_device(device: Device, limits: dict[str, int] | None = None, features: Iterable[str] = ()) -> Any:
    """Open ``device``.

    Args:
        device: The device to open.
        limits: Limits to enforce, by WebGPU's names. Those not named, or all for None, are what the adapter offers.
        features: Features to enable, by WebGPU's names.

    Returns:
        A `wgpu.GPUDevice`.

    Raises:
        DeviceError: The adapter is gone, or lacks a limit or feature.
    """
    if device.runtime is not Runtime.WGPU:
        raise DeviceError(
            f"{device.key} is reached through {device.runtime.value}, which does not run WGSL",
            "choose a device whose runtime is wgpu: `wgtune devices` lists them",
        )
    adapters = [(d, a) for d, a in list_adapters() if d.key == device.key]
    if not adapters:
        raise DeviceError(f"the device {device.key} is no longer there", "`wgtune devices` lists what there is")
    # The index tells equal GPUs apart. If it is gone because the drivers' order changed, take any of them.
    offered, adapter = next(((d, a) for d, a in adapters if d.index == device.index), adapters[0])
    for name, wanted in (limits or {}).items():
        if name not in offered.limits:
            raise DeviceError(
                f"{name} is not a limit that wgtune knows", "build the bundle with this version of wgtune"
            )
        at_least = name.startswith("max")
        if wanted > offered.limits[name] if at_least else wanted < offered.limits[name]:
            raise DeviceError(f"{device.key} offers {name} = {offered.limits[name]}, but {wanted} is needed", _OTHER)
    wanted_features = list(features)
    missing = [name for name in wanted_features if name not in offered.features]
    if missing:
        raise DeviceError(
            f"{device.key} lacks the WebGPU feature{'s' * (len(missing) > 1)} {', '.join(missing)}", _OTHER
        )
    return adapter.request_device_sync(
        required_features=[_FEATURES[name] for name in wanted_features],
        required_limits={_hyphenated(name): value for name, value in (limits or {}).items()},
    )


def use_backend(backend: str) -> None:
    """Have wgpu load only the drivers of ``backend`` (as in `Device.backend`) in this process.

    Loading the others takes half of a worker's start-up time. Call this before any other use of wgpu.
    """
    from wgpu.backends.wgpu_native.extras import set_instance_extras

    use_quick_lookups()
    set_instance_extras(backends=[_INSTANCE_BACKENDS[backend]])


def timestamp_period_s(gpu: Any) -> float | None:
    """Return the seconds per tick of timestamp queries; None where there are none, or the period is unknown.

    wgpu resolves queries to raw ticks (1 ns on some GPUs, 52 or 83 ns on Intel's), not to WebGPU's nanoseconds.
    """
    if "timestamp-query" not in gpu.features:
        return None
    from wgpu.backends.wgpu_native import lib

    period_ns = getattr(lib, "wgpuQueueGetTimestampPeriod", None)
    return float(period_ns(gpu.queue._internal)) * 1e-9 if period_ns is not None else None


def make_pipeline(gpu: Any, source: str, entry: str) -> Pipeline:
    """Compile ``entry`` of a WGSL module, with a bind group layout of all bindings that the module declares.

    Raises wgpu.GPUValidationError with the compiler's message, or ValueError for bindings with gaps.
    """
    types = binding_types(source)
    # Naga implements subgroups, but does not accept the directive that browsers require for them.
    module = gpu.create_shader_module(code=re.sub(r"^\s*enable\s+subgroups\s*;", "", source, flags=re.MULTILINE))
    layout = gpu.create_bind_group_layout(
        entries=[
            {"binding": i, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}}
            for i, kind in enumerate(types)
        ]
    )
    handle = gpu.create_compute_pipeline(
        layout=gpu.create_pipeline_layout(bind_group_layouts=[layout]),
        compute={"module": module, "entry_point": entry},
    )
    return Pipeline(handle, layout, tuple(types))


def storage_buffer(gpu: Any, nbytes: int) -> Any:
    """Return a zeroed `wgpu.GPUBuffer` for storage bindings and copies both ways, of ``nbytes`` rounded up to 4."""
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
    return gpu.create_buffer(size=max(4, _padded(nbytes)), usage=usage)


def uniform_buffer(gpu: Any, words: Sequence[int]) -> Any:
    """Return a `wgpu.GPUBuffer` for a uniform binding with ``words`` (32 bits, unsigned), padded to 16 bytes."""
    data = np.zeros(max(4, (len(words) + 3) // 4 * 4), np.uint32)
    data[: len(words)] = words
    return gpu.create_buffer_with_data(data=data, usage=wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST)


def write(gpu: Any, buffer: Any, data: np.ndarray | bytes, offset: int = 0) -> None:
    """Queue a copy of ``data`` to byte ``offset`` (a multiple of 4) of ``buffer``, zero-padded to a multiple of 4."""
    raw = (
        np.frombuffer(data, np.uint8)
        if isinstance(data, bytes)
        else np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    )
    if raw.nbytes % 4:
        raw = np.concatenate([raw, np.zeros(-raw.nbytes % 4, np.uint8)])
    if raw.nbytes:
        gpu.queue.write_buffer(buffer, offset, raw)


def read(gpu: Any, buffer: Any, nbytes: int, offset: int = 0) -> np.ndarray:
    """Wait for all queued work; return ``nbytes`` of ``buffer`` from byte ``offset`` (a multiple of 4) as uint8."""
    return np.frombuffer(gpu.queue.read_buffer(buffer, offset, max(4, _padded(nbytes))), np.uint8)[:nbytes]


def wait(gpu: Any) -> None:
    """Return when all queued work is done."""
    # wgpu 0.32's own call for this raises TypeError, and its private one reports no errors. Reading back waits, too.
    fence = gpu.create_buffer(size=4, usage=wgpu.BufferUsage.COPY_SRC)
    gpu.queue.read_buffer(fence)
    fence.destroy()


def bind(gpu: Any, pipeline: Pipeline, ranges: Sequence[Range]) -> Any:
    """Return a `wgpu.GPUBindGroup` with ``ranges[i]`` at binding i."""
    return gpu.create_bind_group(
        layout=pipeline.layout,
        entries=[
            {"binding": i, "resource": {"buffer": buffer, "offset": offset, "size": _padded(size)}}
            for i, (buffer, offset, size) in enumerate(ranges)
        ],
    )


def encode(gpu: Any, steps: Sequence[Step], repeat: int = 1) -> Any:
    """Return a command buffer that runs ``steps`` in order ``repeat`` times, in one compute pass."""
    encoder = gpu.create_command_encoder()
    encode_pass(encoder, steps, repeat)
    return encoder.finish()


def encode_pass(encoder: Any, steps: Sequence[Step], repeat: int = 1, stamps: tuple[Any, int] | None = None) -> None:
    """Append a compute pass that runs ``steps`` in order ``repeat`` times to a `wgpu.GPUCommandEncoder`.

    ``stamps`` is a timestamp query set and an index: the pass's begin is written there, its end at the next index.
    """
    writes = {}
    if stamps is not None:
        queries, first = stamps
        writes["timestamp_writes"] = {
            "query_set": queries,
            "beginning_of_pass_write_index": first,
            "end_of_pass_write_index": first + 1,
        }
    compute = encoder.begin_compute_pass(**writes)
    last: Step | None = None
    for _ in range(repeat):
        for step in steps:
            if step is not last:
                compute.set_pipeline(step.pipeline.handle)
                compute.set_bind_group(0, step.group)
                last = step
            compute.dispatch_workgroups(*step.grid)
    compute.end()


def _hyphenated(name: str) -> str:
    return re.sub(r"([A-Z])", lambda m: "-" + m.group(1).lower(), name)


def _padded(nbytes: int) -> int:
    return (nbytes + 3) // 4 * 4
