"""What a session writes down before its first trial: the model, its kernels as workloads, the device, the toolchain."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from importlib import metadata
from typing import Any

import tvm

from ...database.processes import host_name
from ...database.schema.records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Param,
    SessionInfo,
    TvmForm,
    WorkloadInfo,
)
from ...database.store import Store
from ...database.tvm.modules import module_hash
from ...devices.device import Device
from ...devices.limits import Tier
from ...support.enums import CacheState
from ...support.errors import UsageError
from ..codegen.tvm_native import NativeTier
from ..ir import Capture, Kernel

_TOOLCHAIN = (
    "wgtune",
    "apache-tvm",
    "apache-tvm-ffi",
    "wgpu",
    "xgboost",
    "numpy",
    "torch",
    "diffusers",
    "transformers",
)


def register_workloads(store: Store, kernels: Iterable[Kernel]) -> None:
    """Adds the kernels to the database, unless they are there."""
    store.add_workloads(_workload(kernel) for kernel in kernels)


def register_model(store: Store, capture: Capture, steps: int) -> None:
    """Adds the captured model and all its kernels to the database, unless they are there."""
    register_workloads(store, capture.kernels.values())
    rows = [
        ModelKernel(stage=stage.name, workload_id=kernel, calls=calls, order=order)
        for stage in capture.stages.values()
        for order, (kernel, calls) in enumerate(stage.calls_per_kernel().items())
    ]
    store.add_model(ModelInfo(capture.key, capture.model, asdict(capture.options), steps), rows)


def device_info(device: Device) -> DeviceInfo:
    """The device as the database describes it."""
    return DeviceInfo(device.key, device.backend, device.vendor, device.architecture, device.model, device.software)


def session_info(
    device: Device, capture: Capture, tier: Tier, budget: dict[str, Any], seed: int, reason: str
) -> SessionInfo:
    """The session that this process is about to begin on ``device``."""
    return SessionInfo(
        device=device_info(device),
        runtime=device.runtime,
        driver=device.driver,
        adapter={"limits": dict(device.limits), "features": list(device.features), "type": device.adapter_type},
        toolchain=toolchain(),
        model=capture.model,
        capture_key=capture.key,
        tier=tier.name,
        budget=budget,
        seed=seed,
        reason=reason,
        host=host_name(),
        pid=os.getpid(),
        target=tier.target if isinstance(tier, NativeTier) else "",
    )


def own_session(earlier: SessionInfo, device: Device) -> SessionInfo:
    """The session that this process is about to begin on ``device`` as it is now, about what ``earlier`` was about."""
    return replace(
        earlier,
        driver=device.driver,
        adapter={"limits": dict(device.limits), "features": list(device.features), "type": device.adapter_type},
        toolchain=toolchain(),
        host=host_name(),
        pid=os.getpid(),
    )


def check_cache_state(store: Store, device: Device, cache: CacheState) -> None:
    """Raises UsageError where the database holds times of ``device`` that were taken with its caches otherwise."""
    for kept in store.sessions(device_key=device.key):
        if kept.info.runtime is device.runtime and kept.info.cache is not cache:
            raise UsageError(
                f"the times of {device.key} in {store.name} were taken with {kept.info.cache.value} caches: "
                f"{cache.value} ones cannot be compared with them",
                f"keep them apart with --db, or measure with --cache {kept.info.cache.value}",
            )


def toolchain() -> dict[str, str]:
    """Versions of what shapes schedules, WGSL and measurements, by package; of Python itself, too."""
    versions = {"python": platform.python_version()}
    for package in _TOOLCHAIN:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _workload(kernel: Kernel) -> WorkloadInfo:
    return WorkloadInfo(
        id=kernel.id,
        name=kernel.name,
        text=kernel.text,
        forms=(TvmForm(tvm.__version__, tvm.ir.save_json(kernel.func), module_hash(kernel.func)),),
        params=tuple(Param(p.name, p.shape, p.dtype) for p in kernel.params),
        outputs=kernel.outputs,
        flops=kernel.flops,
        nbytes=kernel.nbytes,
    )


_SHORTEST_ID = 6
"""Hex digits from which a word may be the beginning of a kernel's id."""


def select_kernels(
    capture: Capture, stages: Sequence[str] | None = None, patterns: Sequence[str] | None = None
) -> list[Kernel]:
    """The kernels that ``stages`` launch and that some pattern names, in order of first launch; None means all.

    A pattern is a kernel's name, its id or the beginning of it, or a glob over names (``conv2d*``).

    Raises:
        UsageError: there is no such stage, or a pattern fits no kernel of the stages.
    """
    unknown = [stage for stage in stages or () if stage not in capture.stages]
    if unknown:
        raise UsageError(
            f"{capture.model} has no stage {', '.join(unknown)}", f"its stages: {', '.join(capture.stages)}"
        )
    found: dict[str, Kernel] = {}
    for name, stage in capture.stages.items():
        if not stages or name in stages:
            for kernel in stage.calls_per_kernel():
                found.setdefault(kernel, capture.kernels[kernel])
    if not patterns:
        return list(found.values())
    for pattern in patterns:
        if not any(_fits(kernel, pattern) for kernel in found.values()):
            raise UsageError(
                f"no kernel of {capture.model} is called {pattern!r}",
                f"`wgtune kernels --model {capture.model}` lists them; a pattern such as 'conv2d*' works too",
            )
    return [kernel for kernel in found.values() if any(_fits(kernel, pattern) for pattern in patterns)]


def _fits(kernel: Kernel, pattern: str) -> bool:
    if kernel.name == pattern or fnmatchcase(kernel.name, pattern):
        return True
    return len(pattern) >= _SHORTEST_ID and kernel.id.startswith(pattern.lower())
