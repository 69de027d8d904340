"""The WebGPU limits that a bundle needs, and whether a tier has them."""

from __future__ import annotations

from collections.abc import Iterable

from ...devices.limits import MIB, TIERS, Tier
from ...devices.program import Program
from ...support.errors import BundleError
from ...tuner.ir import Capture
from ..format.plan import Plan
from .glue import THREADS


def required_limits(plan: Plan, programs: Iterable[Program]) -> dict[str, int]:
    """Return the least limits, by WebGPU's names, with which a device runs ``plan``.

    ``programs`` are the kernels' programs in the plan; the glue stages are known.
    """
    limits = {
        "maxComputeInvocationsPerWorkgroup": THREADS,
        "maxComputeWorkgroupSizeX": THREADS,
        "maxComputeWorkgroupSizeY": 1,
        "maxComputeWorkgroupSizeZ": 1,
        "maxComputeWorkgroupStorageSize": 0,
    }
    for program in programs:
        for name, value in program.needs.limits().items():
            limits[name] = max(limits.get(name, 0), value)
    uniform = {i for i, buffer in enumerate(plan.buffers) if buffer.usage == "uniform"}
    dispatches = [dispatch for stage in plan.stages.values() for dispatch in stage]
    storage = [[r for r in d.bindings if r.buffer not in uniform] for d in dispatches]
    return {
        **limits,
        "maxStorageBuffersPerShaderStage": max(len(ranges) for ranges in storage),
        "maxStorageBufferBindingSize": max(r.nbytes for ranges in storage for r in ranges),
        "maxComputeWorkgroupsPerDimension": max(max(d.grid) for d in dispatches),
        "maxBufferSize": max(buffer.nbytes for buffer in plan.buffers),
    }


def check_plan(limits: dict[str, int], tier: Tier) -> None:
    """Raise BundleError where ``limits`` exceed the tier's, naming the limit, both values and a tier that suffices."""
    broken = [f"{n} is {v}, tier {tier.name} grants {tier.limits[n]}" for n, v in limits.items() if v > tier.limits[n]]
    if not broken:
        return
    others = [t.name for t in TIERS.values() if all(v <= t.limits[n] for n, v in limits.items())]
    raise BundleError(
        f"the plan does not fit the tier: {'; '.join(broken)}",
        f"--tier {others[0]} would do" if others else "a smaller image or batch may fit",
    )


def check_tensors(capture: Capture, tier: Tier) -> None:
    """Raise BundleError for a tensor that is larger than one binding of ``tier``.

    Needs no programs, so that this is known before any kernel is emitted.
    """
    most = tier.limits["maxStorageBufferBindingSize"]
    largest, label = 0, ""
    for stage in capture.stages.values():
        for call in stage.calls:
            for operand in call.operands:
                if operand.nbytes > max(most, largest):
                    largest = operand.nbytes
                    specs = {"input": stage.inputs, "param": stage.params, "output": stage.outputs}.get(
                        operand.space, []
                    )
                    name = specs[operand.index].name if specs else f"{operand.space} {operand.index}"
                    label = f"{name} of {stage.name} (kernel {capture.kernels[call.kernel].name})"
    if not label:
        return
    others = [t.name for t in TIERS.values() if t.limits["maxStorageBufferBindingSize"] >= largest]
    raise BundleError(
        f"{label} takes {largest / MIB:.1f} MiB in one binding; "
        f"maxStorageBufferBindingSize of tier {tier.name} is {most / MIB:.0f} MiB",
        f"--tier {others[0]} would do" if others else "a smaller image or batch may fit",
    )
