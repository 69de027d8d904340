"""TVM targets with a tier's limits: one for search, one for emission."""

from __future__ import annotations

from dataclasses import replace

from tvm.target import Target

from ...devices.limits import Tier
from ...devices.quirks import NO_QUIRKS, Quirks
from ..schedule_rules import Limits
from .tvm_native import NativeTier, native_target

_SEARCH_WARP = 32
"""Threads that MetaSchedule groups for cross-thread reductions. WebGPU guarantees no subgroup size: 32 only shapes the
design space, and emitted code reduces through workgroup memory."""


def search_target(tier: Tier) -> Target:
    """Return the target for MetaSchedule: ``vulkan`` with the limits of ``tier``, or the target of a `NativeTier`.

    MetaSchedule's GPU rules accept vulkan, metal, cuda, rocm and opencl, and reject ``webgpu``. A schedule within these
    limits is legal WebGPU, whatever the target's name.
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
    """Return the target for dlight and for lowering: ``webgpu``, or the target of a `NativeTier`.

    Subgroup operations stay off even where the tier has them: TVM assumes subgroups of 32 threads, and WebGPU
    guarantees no size.
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


def workgroup_limits(tier: Tier, quirks: Quirks = NO_QUIRKS) -> Limits:
    """Return the limits of a workgroup of ``tier``, and what is known of the device that defaults are chosen for."""
    limits = Limits(_threads(tier), tier.limits["maxComputeWorkgroupStorageSize"])
    return replace(
        limits,
        lanes=quirks.lanes or limits.lanes,
        wave=quirks.wave or limits.wave,
        shares=not quirks.avoids_workgroup_memory,
    )


def _threads(tier: Tier) -> int:
    """Return the most threads of a one-dimensional workgroup, the shape that schedules use most."""
    return min(tier.limits["maxComputeInvocationsPerWorkgroup"], tier.limits["maxComputeWorkgroupSizeX"])
