"""What a session checks and inserts before its first trial: kernels, model, workloads, its own description."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any

import tvm

from ...database.liveness import host_name
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
from ...devices.measure.job import Peaks
from ...support.enums import CacheState
from ...support.errors import UsageError
from ..codegen.tvm_native import NativeTier
from ..ir import Capture, Kernel
from ..kernel_names import chosen_kernels
from .request import TuneRequest

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


def select_kernels(
    capture: Capture, stages: Sequence[str] | None = None, patterns: Sequence[str] | None = None
) -> list[Kernel]:
    """Return the kernels that a request names, in order of first launch.

    Args:
        capture: the model.
        stages: names of stages whose kernels are meant; None for all.
        patterns: a kernel's name, its id or the first 6 or more hex digits of it, or a glob over names (``conv2d*``);
            None for all.

    Raises:
        UsageError: there is no such stage, or a pattern matches no kernel of the stages.
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
    hint = f"`wgtune kernels --model {capture.model}` lists them; a pattern such as 'conv2d*' works too"
    chosen = chosen_kernels(patterns or (), {one.id: one.name for one in found.values()}, capture.model, hint)
    return [found[kernel_id] for kernel_id in chosen]


def check_cache_state(store: Store, device: Device, cache: CacheState) -> None:
    """Check that times with caches in state ``cache`` can join those that the database holds of ``device``.

    Raises:
        UsageError: the database holds times that were taken with caches in the other state.
    """
    for kept in store.sessions(device_key=device.key):
        if kept.info.runtime is device.runtime and kept.info.cache is not cache:
            raise UsageError(
                f"the times of {device.key} in {store.name} were taken with {kept.info.cache.value} caches: "
                f"{cache.value} ones cannot be compared with them",
                f"keep them apart with --db, or measure with --cache {kept.info.cache.value}",
            )


def register_model(store: Store, capture: Capture, steps: int) -> None:
    """Insert the captured model and all its kernels into the database, unless they are there."""
    register_workloads(store, capture.kernels.values())
    rows = [
        ModelKernel(stage=stage.name, workload_id=kernel, calls=calls, order=order)
        for stage in capture.stages.values()
        for order, (kernel, calls) in enumerate(stage.calls_per_kernel().items())
    ]
    store.add_model(ModelInfo(capture.key, capture.model, asdict(capture.options), steps), rows)


def register_workloads(store: Store, kernels: Iterable[Kernel]) -> None:
    """Insert the kernels into the database as workloads, unless they are there."""
    store.add_workloads(_workload(kernel) for kernel in kernels)


def session_info(request: TuneRequest, peaks: Peaks) -> SessionInfo:
    """Return the database's description of a session that this process is about to begin on a device with ``peaks``."""
    device, tier = request.device, request.tier
    return SessionInfo(
        device=device_info(device),
        runtime=device.runtime,
        driver=device.driver,
        adapter=_adapter(device),
        toolchain=_toolchain(),
        model=request.capture.model,
        capture_key=request.capture.key,
        tier=tier.name,
        budget=request.budget_json(),
        seed=request.seed,
        reason=request.reason,
        host=host_name(),
        pid=os.getpid(),
        target=tier.target if isinstance(tier, NativeTier) else "",
        cache=request.cache,
        calibration=asdict(peaks),
    )


def repeated_session_info(earlier: SessionInfo, device: Device) -> SessionInfo:
    """Return ``earlier`` as a session of this process, with the present driver, adapter and toolchain.

    It is not calibrated.
    """
    return replace(
        earlier,
        driver=device.driver,
        adapter=_adapter(device),
        toolchain=_toolchain(),
        host=host_name(),
        pid=os.getpid(),
        calibration={},
    )


def device_info(device: Device) -> DeviceInfo:
    """Return the database's description of ``device``."""
    return DeviceInfo(device.key, device.backend, device.vendor, device.architecture, device.model, device.software)


def _toolchain() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape schedules, WGSL and measurements, by name."""
    versions = {"python": platform.python_version()}
    for package in _TOOLCHAIN:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _adapter(device: Device) -> dict[str, Any]:
    return {"limits": dict(device.limits), "features": list(device.features), "type": device.adapter_type}


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
