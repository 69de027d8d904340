"""The rule of attention: which kernels are attention, what is emitted, and that scores never reach memory."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import tvm
from tuning_kernels import matmul, softmax
from tvm import te, tirx
from tvm.s_tir import Schedule

from wgtune.database.tvm.traces import ENTRY, translated
from wgtune.devices.limits import TIERS, Tier
from wgtune.devices.quirks import Quirks
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.targets import workgroup_limits
from wgtune.tuner.codegen.traces import replay, schedulable_module, trace_to_json
from wgtune.tuner.codegen.wgsl import EmitError, emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules import RuleSpace, expanded, rule_spaces
from wgtune.tuner.schedule_rules.attention import find_attention
from wgtune.tuner.schedule_rules.attention.definition import Attention, attention_func, attention_of
from wgtune.tuner.schedule_rules.rule import ANNOTATION
from wgtune.tuner.search.kernel_space import KernelSpace

TIER = TIERS["default"]
SMALL = Attention(1, 16, 16, 2, 8, 0.5)

SD15 = {
    "4096 queries, heads of 40": Attention(2, 4096, 4096, 8, 40, 40**-0.5),
    "prompt, heads of 40": Attention(2, 4096, 77, 8, 40, 40**-0.5),
    "heads of 80": Attention(2, 1024, 1024, 8, 80, 80**-0.5),
    "prompt, heads of 160": Attention(2, 64, 77, 8, 160, 160**-0.5),
    "decoder": Attention(1, 4096, 4096, 1, 512, 512**-0.5),
    "text encoder": Attention(1, 77, 77, 12, 64, 0.125, causal=True),
    "BERT": Attention(1, 512, 512, 16, 64, 0.125, mask=(1, 1, 1, 512)),
    "odd": Attention(3, 13, 5, 2, 9, 1.0),
}


def kernel_of(like: Attention) -> Kernel:
    return make_kernel("attention", attention_func(like))


def space_of(like: Attention, tier: Tier = TIER, quirks: Quirks | None = None) -> RuleSpace:
    (space,) = rule_spaces(schedulable_module(kernel_of(like)), workgroup_limits(tier, quirks or Quirks()))
    return space


@pytest.mark.parametrize("name", SD15)
def test_the_definition_is_recognised_and_emits_one_dispatch_without_scratch(name: str) -> None:
    like = SD15[name]
    assert find_attention(schedulable_module(kernel_of(like))) == like
    for quirks in (Quirks(), Quirks(lanes=64, wave=8, avoids_workgroup_memory=True)):
        space = space_of(like, quirks=quirks)
        assert space.rule == "attention" and space.fits(space.defaults)
        program = emit_wgsl(space.schedule(space.defaults).mod, TIER)
        (dispatch,) = program.dispatches
        assert not program.scratch and len(dispatch.buffers) <= 5
        if quirks.avoids_workgroup_memory and like.channels < 128:
            assert program.needs.workgroup_bytes == 0


def test_half_precision_tensors_are_summed_in_single_precision() -> None:
    like = replace(SMALL, dtype="float16")
    assert find_attention(schedulable_module(kernel_of(like))) == like
    tier = replace(TIER, features=frozenset({"shader-f16"}))
    space = space_of(like, tier)
    program = emit_wgsl(space.schedule(space.defaults).mod, tier)
    source = program.shaders[0].source
    assert "enable f16;" in source and program.needs.features == ("shader-f16",)
    assert "var own_sum_0 : vec4<f32>" in source and "var<workgroup> part_scores : array<vec4<f16>" not in source


def test_other_arithmetic_is_no_attention() -> None:
    assert find_attention(schedulable_module(softmax())) is None
    assert find_attention(schedulable_module(matmul())) is None
    inputs = [te.placeholder(shape, "float32") for shape in SMALL.inputs]
    result = attention_of(*inputs, like=SMALL)
    doubled = te.compute(result.shape, lambda *axes: result(*axes) * tirx.const(0.5, "float32"))
    longer = make_kernel("attention", te.create_prim_func([*inputs, doubled], "int64"))
    assert find_attention(schedulable_module(longer)) is None
    assert not [
        space for space in rule_spaces(schedulable_module(longer), workgroup_limits(TIER)) if space.rule == "attention"
    ]


def test_search_and_baselines_have_no_schedule_that_keeps_scores() -> None:
    kernel = kernel_of(replace(SMALL, queries=64, keys=48))
    space = KernelSpace(kernel, TIER)
    assert [type(sketch).__name__ for sketch in space.sketches] == ["RuleSketch"]
    programs = [emit_wgsl(schedule.mod, TIER) for schedule in baseline_schedules(kernel, TIER)]
    assert programs and not any(program.scratch or len(program.dispatches) > 1 for program in programs)
    point = space.draw(random.Random(3))
    assert point is not None
    schedule = space.schedule(point, 1)
    assert schedule is not None and space.point_of(trace_to_json(schedule)) == point


def test_a_trace_replays_and_translates_to_other_names() -> None:
    kernel = kernel_of(SMALL)
    space = space_of(SMALL)
    schedule = space.schedule(space.defaults)
    digest = emit_wgsl(schedule.mod, TIER).digest
    stored = trace_to_json(schedule)
    assert emit_wgsl(replay(kernel, stored).mod, TIER).digest == digest
    theirs = tvm.IRModule({ENTRY: attention_func(SMALL).with_attr("global_symbol", ENTRY)})
    moved = translated(json.loads(stored), schedulable_module(kernel), theirs)
    assert (
        emit_wgsl(translated(json.loads(trace_to_json(moved)), theirs, schedulable_module(kernel)).mod, TIER).digest
        == digest
    )


def test_what_is_emitted_has_the_kernels_parameters_and_no_row_of_scores() -> None:
    space = space_of(SMALL)
    module = expanded(space.schedule(space.defaults).mod)
    shapes = [tuple(int(extent) for extent in param.ty.shape) for param in module[ENTRY].params]
    assert shapes == [*SMALL.inputs, SMALL.inputs[0]]
    assert expanded(module) is module


@pytest.mark.parametrize(
    "label",
    [
        "attention",
        "attention rows=0 parts=1 groups=4 keys=2 staged=0",
        "attention rows=1 parts=3 groups=4 keys=2 staged=0",
        "attention rows=1 parts=1 groups=4 keys=2 staged=-1",
        "attention rows=900 parts=1 groups=4 keys=900 staged=0",
        "attention rows=x parts=1 groups=4 keys=2 staged=0",
        "attention rows=1 parts=1 groups=4 keys=2 staged=0 more=1",
    ],
)
def test_a_schedule_from_a_file_that_does_not_fit_is_refused(label: str) -> None:
    schedule = Schedule(schedulable_module(kernel_of(SMALL)))
    schedule.annotate(schedule.get_sblock("root"), ANNOTATION, label)
    with pytest.raises(EmitError, match="cannot be expanded"):
        emit_wgsl(schedule.mod, TIER)


def test_a_schedule_of_attention_on_another_kernel_is_refused() -> None:
    schedule = Schedule(schedulable_module(matmul()))
    schedule.annotate(schedule.get_sblock("root"), ANNOTATION, space_of(SMALL).label(space_of(SMALL).defaults))
    with pytest.raises(EmitError, match="cannot be expanded"):
        emit_wgsl(schedule.mod, TIER)


@pytest.mark.parametrize("tier", ["default", "desktop"])
def test_what_fits_keeps_the_limits_of_a_workgroup(tier: str) -> None:
    chance = random.Random(5)
    space = space_of(replace(SMALL, queries=40, keys=29, channels=16), TIERS[tier])
    emitted = 0
    for _ in range(4000):
        point = {parameter.name: chance.choice(parameter.candidates) for parameter in space.parameters}
        if emitted < 12 and space.fits(point) and (space.describe(point).statements or 0) <= 64:
            program = emit_wgsl(space.schedule(point).mod, TIERS[tier])
            assert len(program.dispatches) == 1 and not program.scratch
            emitted += 1
    assert emitted == 12
