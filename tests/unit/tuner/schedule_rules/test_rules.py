"""Schedules of the rules: within the limits, in one dispatch, and told apart by their label."""

from __future__ import annotations

import json
import random

import pytest
from tuning_kernels import conv2d, matmul, softmax

from wgtune.database.tvm.traces import trace_values
from wgtune.devices.limits import TIERS
from wgtune.tuner.codegen.targets import workgroup_limits
from wgtune.tuner.codegen.traces import replay, schedulable_module, trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules import Limits, RuleSpace, rule_spaces
from wgtune.tuner.schedule_rules.matmul import matmul as matmul_rule
from wgtune.tuner.schedule_rules.tiles import Tile, Work, best_tile, divisors, estimated_time, vector_width
from wgtune.tuner.search.rule_sketch import RuleSketch

TIER = TIERS["default"]
LIMITS = workgroup_limits(TIER)
KERNELS = {"matmul": matmul(64, 96, 48), "conv2d": conv2d()}


def space_of(kernel: Kernel) -> RuleSpace:
    (space,) = rule_spaces(schedulable_module(kernel), workgroup_limits(TIER))
    return space


@pytest.mark.parametrize("name", KERNELS)
def test_the_default_is_one_dispatch_that_replays_from_its_trace(name: str) -> None:
    space = space_of(KERNELS[name])
    assert space.rule == name
    schedule = space.schedule(space.defaults)
    program = emit_wgsl(schedule.mod, TIER)
    assert len(program.dispatches) == 1 and not program.scratch
    again = replay(KERNELS[name], trace_to_json(schedule))
    assert emit_wgsl(again.mod, TIER).digest == program.digest


@pytest.mark.parametrize("name", KERNELS)
def test_a_stored_trace_tells_its_point(name: str) -> None:
    sketch = RuleSketch(space_of(KERNELS[name]))
    chance = random.Random(0)
    decisions = sketch.draw(chance)
    assert decisions is not None
    schedule = sketch.schedule(decisions)
    stored = trace_to_json(schedule)
    assert sketch.decisions_of(json.loads(stored)) == decisions
    assert sketch.decisions_of(trace_values(replay(KERNELS[name], stored).trace)) == decisions
    other = next(key for key in KERNELS if key != name)
    assert RuleSketch(space_of(KERNELS[other])).decisions_of(json.loads(stored)) is None
    changed = sketch.mutate(decisions, chance)
    assert changed is not None and changed != decisions and sketch.fits(changed)


@pytest.mark.parametrize("limits", [Limits(64, 2048), Limits(256, 16384), Limits(256, 32768)])
def test_what_fits_keeps_the_limits(limits: Limits) -> None:
    for kernel in KERNELS.values():
        (space,) = rule_spaces(schedulable_module(kernel), limits)
        assert space.fits(space.defaults)
        needs = emit_wgsl(space.schedule(space.defaults).mod, TIERS["desktop"]).needs
        assert needs.threads <= limits.threads and needs.workgroup_bytes <= limits.shared_bytes


def test_what_is_no_product_has_no_space_of_one() -> None:
    assert matmul_rule(schedulable_module(softmax()), workgroup_limits(TIER)) is None
    assert matmul_rule(schedulable_module(conv2d()), workgroup_limits(TIER)) is None


def test_labels_of_another_rule_or_version_are_none() -> None:
    space = space_of(KERNELS["matmul"])
    assert space.values_of(space.label(space.defaults)) == space.defaults
    assert space.values_of("conv2d step=4") is None and space.values_of("matmul tile=4") is None


def test_divisors_and_vector_widths() -> None:
    assert divisors(12) == (1, 2, 3, 4, 6, 12) and divisors(12, 4) == (1, 2, 3, 4)
    assert [vector_width(n) for n in (8, 6, 77)] == [4, 2, 1]


def test_the_best_tile_reuses_what_it_loads_where_there_is_enough_work() -> None:
    def work(groups: int, tile: Tile) -> Work:
        loads = (tile.rows + tile.columns) / 4
        return Work(groups, loads, tile.rows * tile.threads_r + tile.columns * tile.threads_c, 1.5)

    small, large = Tile(8, 8, 2, 2), Tile(8, 8, 8, 8)
    assert best_tile([(small, work(100_000, small)), (large, work(6_250, large))], LIMITS) is large
    assert best_tile([(small, work(16, small)), (large, work(1, large))], LIMITS) is small
    assert best_tile([], LIMITS) is None
    ragged = Tile(5, 5, 8, 8)
    assert estimated_time(ragged, work(6_250, ragged), LIMITS) > estimated_time(large, work(6_250, large), LIMITS)
