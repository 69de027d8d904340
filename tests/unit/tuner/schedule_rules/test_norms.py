"""Row reductions: one dispatch, vectors, each element read at most twice; which kernels they are."""

from __future__ import annotations

import re

import pytest
from tuning_kernels import group_norm, layer_norm, matmul, softmax, transpose
from tvm import te, topi
from tvm.s_tir import Schedule

from wgtune.devices.limits import TIERS
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.targets import workgroup_limits
from wgtune.tuner.codegen.traces import replay, schedulable_module, trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules import Limits, RuleSpace, rule_spaces
from wgtune.tuner.schedule_rules.row_reduction import find_row_kernel

TIER = TIERS["desktop"]


def space_of(kernel: Kernel, limits: Limits | None = None) -> RuleSpace:
    (space,) = rule_spaces(schedulable_module(kernel), limits or workgroup_limits(TIERS["default"]))
    return space


def source_of(kernel: Kernel) -> str:
    space = space_of(kernel)
    program = emit_wgsl(space.schedule(space.defaults).mod, TIER)
    assert len(program.dispatches) == 1 and not program.scratch
    return program.shaders[0].source


SHAPES = {
    "softmax": [softmax(*shape) for shape in ((8, 1024, 4096), (16, 1024, 1024), (16, 256, 256), (16, 64, 64))],
    "layer_norm": [layer_norm(*shape) for shape in ((77, 768), (4096, 320), (1024, 640), (256, 1280))],
    "group_norm": [
        group_norm(32, *shape)
        for shape in ((2, 320, 64, 64), (2, 1920, 32, 32), (2, 2560, 8, 8), (1, 128, 512, 512), (1, 512, 64, 64))
    ],
}
KERNELS = [(rule, kernel) for rule, kernels in SHAPES.items() for kernel in kernels]


@pytest.mark.parametrize(("rule", "kernel"), KERNELS, ids=[f"{rule}{n}" for n, (rule, _) in enumerate(KERNELS)])
def test_the_shapes_of_stable_diffusion_take_one_dispatch_with_vectors(rule: str, kernel: Kernel) -> None:
    space = space_of(kernel)
    assert space.rule == rule and space.fits(space.defaults)
    source = source_of(kernel)
    bindings = re.findall(r"@binding\(\d\) var<storage, (\w+)> (\w+) : array<(\S+),", source)
    rows = [name for access, name, element in bindings if element == "vec4<f32>"]
    assert rows[0] == bindings[0][1] and rows[-1] == bindings[-1][1] and bindings[-1][0] == "read_write"
    body = source[source.index("fn ") :]
    assert not re.search(r"[/%] \d+u", body)
    passes = sum(f"{rows[0]}[" in block for block in re.split(r"workgroupBarrier", body))
    assert passes <= 2
    assert f"= {rows[-1]}[" not in body


@pytest.mark.parametrize("limits", [Limits(64, 2048), Limits(256, 16384)])
@pytest.mark.parametrize("kernel", [softmax(2, 3, 77), layer_norm(5, 13), group_norm(4, 2, 12, 5, 7)])
def test_any_length_keeps_the_limits(kernel: Kernel, limits: Limits) -> None:
    space = space_of(kernel, limits)
    assert space.fits(space.defaults)
    needs = emit_wgsl(space.schedule(space.defaults).mod, TIER).needs
    assert needs.threads <= limits.threads and needs.workgroup_bytes <= limits.shared_bytes


def test_rows_longer_than_registers_are_read_in_another_order_the_second_time() -> None:
    """Or Mesa keeps all of them, and spills."""
    first, *_, last = source_of(group_norm(32, 1, 512, 64, 64)).split("workgroupBarrier();")
    loads = [re.findall(r"b0\[(.+?)\]", part) for part in (first, last)]
    assert len(loads[0]) == len(loads[1]) == 4 and not set(loads[0]) & set(loads[1])


def test_a_schedule_replays_from_its_trace() -> None:
    for kernel in (softmax(2, 3, 64), group_norm(4, 2, 12, 8, 8)):
        space = space_of(kernel)
        schedule = space.schedule(space.defaults)
        again = replay(kernel, trace_to_json(schedule))
        assert emit_wgsl(again.mod, TIER).digest == emit_wgsl(schedule.mod, TIER).digest


def test_a_mask_before_a_softmax_is_computed_once() -> None:
    x, mask = te.placeholder((4, 16, 64)), te.placeholder((16, 64))
    kernel = make_kernel("masked", te.create_prim_func([x, mask, topi.nn.softmax(topi.add(x, mask))]))
    source = source_of(kernel)
    assert source.count(" = b0[") <= 4 and source.count("exp(") <= 4


def test_other_kernels_are_no_row_reductions() -> None:
    def found(kernel: Kernel) -> object:
        return find_row_kernel(Schedule(schedulable_module(kernel)))

    assert found(matmul()) is None and found(transpose()) is None
    x = te.placeholder((4, 8, 16))
    first = make_kernel("first", te.create_prim_func([x, topi.nn.softmax(x, axis=1)]))
    assert found(first) is None  # its rows are no stretches of memory
    assert found(softmax(3, 1)) is None
