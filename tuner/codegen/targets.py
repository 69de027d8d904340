"""TVM targets that carry a tier's WebGPU limits: one to search under, one to emit WGSL with."""

from __future__ import annotations

from tvm.target import Target

from ...devices.limits import Tier
from .tvm_native import NativeTier, native_target

_SEARCH_WARP = 32
"""Threads that MetaSchedule groups for cross-thread reductions. WebGPU promises no subgroup size, so 32 only shapes the
search space; emission knows no warps and reduces through workgroup memory."""


def search_target(tier: Tier) -> Target:
    """The target for dlight and MetaSchedule: ``vulkan`` within the limits of ``tier``.

    MetaSchedule's GPU rules know vulkan, metal, cuda, rocm and opencl, and refuse ``webgpu``. A schedule found under
    these limits is legal WebGPU, whatever the target is called. A `NativeTier` has a target of its own.
    """
    if isinstance(tier, NativeTier):
        return native_target(tier)
    threads = _threads(tier)
    return Target(
        {
            "kind": "vulkan",
            "max_threads_per_block": threads,
            "max_num_threads": threads,
            "thread_warp_size": _SEARCH_WARP,
            "max_shared_memory_per_block": tier.limits["maxComputeWorkgroupStorageSize"],
            "host": "llvm",
        }
    )


def emit_target(tier: Tier) -> Target:
    """The ``webgpu`` target that scheduled TensorIR is lowered for; of a `NativeTier` its own.

    Subgroup operations stay off even where the tier has them: TVM would assume a subgroup of 32 threads, and WebGPU
    promises no size.
    """
    if isinstance(tier, NativeTier):
        return native_target(tier)
    return Target(
        {
            "kind": "webgpu",
            "max_num_threads": _threads(tier),
            "max_shared_memory_per_block": tier.limits["maxComputeWorkgroupStorageSize"],
            "host": "llvm",
        }
    )


def _threads(tier: Tier) -> int:
    """The longest one-dimensional workgroup, which schedules use most."""
    return min(tier.limits["maxComputeInvocationsPerWorkgroup"], tier.limits["maxComputeWorkgroupSizeX"])
