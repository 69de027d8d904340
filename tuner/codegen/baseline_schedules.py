"""Untuned schedules of a kernel: those of the project's rules and of dlight's, and one with short loops."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule, dlight
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.s_tir.dlight.base import try_inline
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.s_tir.schedule import LoopRV, SBlockRV, ScheduleError
from tvm.target import Target

from ...database.tvm.traces import ENTRY
from ...devices.limits import Tier
from ...devices.quirks import NO_QUIRKS, Quirks
from ...devices.wgsl_loops import may_exceed
from ..ir import Kernel
from ..schedule_rules import rule_spaces, ruled_alone, schedule_by_rows
from .emit import emit
from .targets import emit_target, workgroup_limits
from .traces import schedulable_module, trace_to_json
from .tvm_native import NativeTier
from .wgsl import EmitError

_LONG = 4096
"""Most terms of a reduction that one thread sums alone."""


def baseline_schedules(kernel: Kernel, tier: Tier, quirks: Quirks = NO_QUIRKS) -> Iterator[Schedule]:
    """Yield untuned schedules, each with a trace; the first that emits, runs and verifies is the kernel's baseline.

    First come the defaults of `wgtune.tuner.schedule_rules`, then TVM's default for a GPU (dlight's rules in the order
    of TVM's generic GPU pipeline), then simpler schedules for drivers that run the first ones wrongly. A rule that
    fails is skipped.

    Args:
        kernel: the kernel to schedule.
        tier: the limits that programs keep.
        quirks: of the device's driver, if it is known. The rules' defaults are chosen for it, and schedules whose loops
            it may end too soon come last.
    """
    if isinstance(tier, NativeTier) and tier.is_cpu:
        schedule = Schedule(schedulable_module(kernel))
        schedule_by_rows(schedule)  # dlight has no rules for CPUs, and nothing else needs one untuned
        yield schedule
        return
    seen: set[str] = set()
    long: list[Schedule] = []
    for schedule in _untuned(kernel, tier, quirks):
        if (trace := trace_to_json(schedule)) in seen:
            continue
        seen.add(trace)
        if _may_exceed(schedule, tier, quirks.max_thread_iterations):
            long.append(schedule)
        else:
            yield schedule
    yield from long


def _untuned(kernel: Kernel, tier: Tier, quirks: Quirks) -> Iterator[Schedule]:
    """Yield the defaults of the project's rules that apply, then those of TVM's."""
    module = schedulable_module(kernel)
    for space in rule_spaces(module, workgroup_limits(tier, quirks)):
        # A rule may not see what makes its schedule impossible, such as a producer that cannot be inlined.
        with contextlib.suppress(ScheduleError, ValueError):
            yield space.schedule(space.defaults)
            for values in space.simpler:
                yield space.schedule(values)
    if ruled_alone(module):
        return
    for rules in _BASELINE_RULES:
        schedule = _apply(rules, kernel, tier)
        if schedule is not None:
            yield schedule


def _apply(rules: tuple[Any, ...], kernel: Kernel, tier: Tier) -> Schedule | None:
    target = emit_target(tier)
    for rule in rules:
        func = schedulable_module(kernel)[ENTRY]
        try:
            with target:
                found = rule.apply(func, target, False)
        except Exception:
            continue
        if found is not None:
            return found[0] if isinstance(found, list) else found
    return None


def _may_exceed(schedule: Schedule, tier: Tier, max_thread_iterations: int | None) -> bool:
    if max_thread_iterations is None:
        return False
    try:
        return may_exceed(emit(schedule.mod, tier), max_thread_iterations)
    except EmitError:
        return False


class ShortLoops(GPUScheduleRule):
    """One thread for each result, or one workgroup where a result sums many terms."""

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> Schedule | None:
        """Return the schedule of ``func``; None for dynamic shapes and for functions that are no loop nests."""
        schedule = Schedule(func)
        infos = normalize_prim_func(schedule)
        if infos is None:
            return None
        threads = int(target.attrs["max_num_threads"])
        for info in try_inline(schedule, infos):
            kinds = info.dom_kind()
            loops = schedule.get_loops(info.block_rv)
            spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "S"]
            reduction = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "R"]
            if len(spatial) + len(reduction) != len(loops):
                return None
            _bind(schedule, info.block_rv, spatial, reduction, threads)
        return schedule


def _bind(schedule: Schedule, block: SBlockRV, spatial: list[LoopRV], reduction: list[LoopRV], threads: int) -> None:
    terms = math.prod(int(schedule.get(loop).extent) for loop in reduction)
    results = schedule.fuse(*spatial) if spatial else schedule.add_unit_loop(block)
    schedule.reorder(results, *reduction)
    if terms > _LONG:
        _, within = schedule.split(schedule.fuse(*reduction), [None, threads])
        schedule.bind(results, "blockIdx.x")
        schedule.bind(within, "threadIdx.x")
        return
    group, thread = schedule.split(results, [None, threads])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    if reduction:
        schedule.decompose_reduction(block, reduction[0])


_BASELINE_RULES: tuple[tuple[Any, ...], ...] = (
    (
        dlight.gpu.Matmul(),
        dlight.gpu.GEMV(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    ),
    (ShortLoops(),),
    (dlight.gpu.Fallback(),),
)
