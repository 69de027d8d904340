"""Native code for TVM's own runtimes: the tier, the target and the program.

The same search runs with a native target. The results show what WGSL loses against native code, and serve native use.
A trial names its runtime; trials of different runtimes are never ranked together.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.target import Target

from ...devices.device import Device
from ...devices.limits import Tier
from ...devices.program import NativeProgram, Requirements
from ...support.enums import Runtime
from ..schedule_rules import expanded
from .wgsl_layout import EmitError

RUNTIMES = frozenset({Runtime.TVM, Runtime.TVM_CUDA, Runtime.TVM_METAL})
"""Runtimes whose programs are TVM's native code."""

_CPU_SHARED = 1 << 30
"""Bytes of workgroup memory on a CPU: no limit, as its schedules use none."""


@dataclass(frozen=True)
class NativeTier(Tier):
    """The limits of native code on one device, with TVM's ``target`` as JSON."""

    target: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether the target is a CPU, whose schedules bind no GPU threads."""
        return bool(json.loads(self.target)["kind"] == "llvm")

    @property
    def rules(self) -> str:
        """Name of MetaSchedule's rules; those of CUDA serve every GPU and use no matrix units."""
        return "llvm" if self.is_cpu else "cuda"


def tier_for(device: Device, tier: Tier) -> Tier:
    """Return ``tier`` for a device that runs WGSL, and the device's own limits where TVM compiles for it."""
    if device.runtime not in RUNTIMES:
        return tier
    threads = device.limits.get("maxComputeInvocationsPerWorkgroup", 1024)
    shared = device.limits.get("maxComputeWorkgroupStorageSize", 32768)
    if device.backend == "llvm":
        shared = _CPU_SHARED
        target: dict[str, Any] = {
            "kind": "llvm",
            "num-cores": os.cpu_count() or 1,
            "mcpu": str(tvm.get_global_func("target.llvm_get_system_cpu")()),
        }
    else:
        target = {
            "kind": device.backend,
            "max_threads_per_block": threads,
            "max_num_threads": threads,
            "max_shared_memory_per_block": shared,
            "thread_warp_size": 32,
            "host": "llvm",
        }
        if device.backend == "cuda" and device.architecture:
            target["arch"] = device.architecture
    limits = {
        **tier.limits,
        "maxComputeInvocationsPerWorkgroup": threads,
        "maxComputeWorkgroupSizeX": threads,
        "maxComputeWorkgroupStorageSize": shared,
    }
    return NativeTier("native", limits, frozenset(), json.dumps(target, sort_keys=True))


def native_target(tier: NativeTier) -> Target:
    """Return TVM's target of ``tier``."""
    return Target(json.loads(tier.target))


def emit_native(mod: tvm.IRModule, tier: NativeTier) -> NativeProgram:
    """Return the program of ``mod``, which holds one scheduled PrimFunc ``main``; the worker builds it.

    Raises:
        EmitError: the schedule is a rule's that does not fit the kernel.
    """
    try:
        mod = expanded(mod)
    except ValueError as error:
        raise EmitError(f"the schedule cannot be expanded: {error}") from error
    kernels, threads = _launches(mod["main"])
    needs = Requirements(
        threads=threads, workgroup_size=(threads, 1, 1), workgroup_bytes=0, storage_buffers=0, binding_bytes=0
    )
    return NativeProgram(tvm.ir.save_json(mod), tier.target, tuple(kernels), needs)


def _launches(func: tirx.PrimFunc) -> tuple[list[str], int]:
    """Return a name for each kernel launched, and the most threads of a workgroup; (["main"], 0) on a CPU."""
    groups: list[str] = []
    threads: dict[str, int] = {}

    def visit(loop: Any) -> None:
        binding = loop.thread_binding
        if binding is None:
            return
        tag = str(binding.thread_tag)
        if tag == "blockIdx.x":
            groups.append(f"main_kernel{len(groups)}")
        elif tag.startswith("threadIdx"):
            threads[tag] = max(threads.get(tag, 1), int(loop.extent))

    tvm_ffi.structural_walk(func.body, [(tirx.For, visit)])
    return groups or ["main"], math.prod(threads.values()) if threads else 0
