"""Where schedules start, and that a stored trace gives the same program again, or a clear error."""

from __future__ import annotations

import json

import pytest
import tvm
from tuning_kernels import conv2d, matmul, softmax, transpose
from tvm import te, topi
from tvm.s_tir import Schedule, dlight

from wgtune.devices.limits import TIERS
from wgtune.devices.quirks import Quirks
from wgtune.devices.wgsl_loops import may_exceed
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.baseline_schedules import ShortLoops, baseline_schedules
from wgtune.tuner.codegen.targets import emit_target, workgroup_limits
from wgtune.tuner.codegen.traces import TraceError, replay, schedulable_module, trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules import rule_spaces
from wgtune.tuner.search.kernel_space import search_context

TIER = TIERS["default"]


def layer_norm() -> Kernel:
    x, gain, bias = te.placeholder((1, 77, 64)), te.placeholder((64,)), te.placeholder((64,))
    return make_kernel("layer_norm", te.create_prim_func([x, gain, bias, topi.nn.layer_norm(x, gain, bias, [2], 1e-5)]))


def take() -> Kernel:
    table, ids = te.placeholder((1000, 64)), te.placeholder((77,), "int32")
    return make_kernel("take", te.create_prim_func([table, ids, topi.take(table, ids, axis=0)]))


KERNELS = {f.__name__: f for f in (matmul, conv2d, softmax, transpose, layer_norm, take)}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_baseline_replays_to_the_same_program(kernel) -> None:
    kernel = kernel()
    schedules = list(baseline_schedules(kernel, TIER))
    assert schedules
    for schedule in schedules:
        again = replay(kernel, trace_to_json(schedule))
        assert trace_to_json(again) == trace_to_json(schedule)
        assert emit_wgsl(again.mod, TIER).digest == emit_wgsl(schedule.mod, TIER).digest


@pytest.mark.parametrize("kernel", [matmul, softmax], ids=["matmul", "softmax"])
def test_candidates_of_a_search_replay_with_their_postprocessing(kernel) -> None:
    kernel = kernel()
    context, postprocs = search_context(schedulable_module(kernel), TIER, seed=7)
    for schedule in context.generate_design_space():
        schedule.enter_postproc()
        if all(postproc.apply(schedule) for postproc in postprocs):
            again = replay(kernel, trace_to_json(schedule))
            tvm.ir.assert_structural_equal(again.mod, schedule.mod)
            assert emit_wgsl(again.mod, TIER).digest == emit_wgsl(schedule.mod, TIER).digest
            return
    pytest.fail("no design passed its postprocessing")


def test_baselines_leave_the_kernel_unscheduled() -> None:
    kernel = matmul()
    before = kernel.func.script()
    list(baseline_schedules(kernel, TIER))
    assert kernel.func.script() == before
    assert "thread" not in schedulable_module(kernel).script()


def test_baselines_differ_and_the_rules_default_comes_before_dlights() -> None:
    kernel = matmul()
    first, second, *others = (trace_to_json(schedule) for schedule in baseline_schedules(kernel, TIER))
    (space,) = rule_spaces(schedulable_module(kernel), workgroup_limits(TIER))
    default = dlight.gpu.Matmul().apply(schedulable_module(kernel)["main"], emit_target(TIER), False)
    assert first == trace_to_json(space.schedule(space.defaults)) and second == trace_to_json(default)
    assert others and len({first, second, *others}) == 2 + len(others)


def test_names_in_the_kernel_do_not_matter() -> None:
    def kernel(a: str, b: str, block: str) -> Kernel:
        x, y = te.placeholder((64, 48), name=a), te.placeholder((48, 96), name=b)
        k = te.reduce_axis((0, 48), name=f"k_{a}")
        out = te.compute((64, 96), lambda i, j: te.sum(x[i, k] * y[k, j], axis=k), name=block)
        return make_kernel("matmul", te.create_prim_func([x, y, topi.nn.relu(out)]))

    one, other = kernel("A", "B", "C"), kernel("weight", "input", "T_matmul")
    assert one.id == other.id
    schedules = list(baseline_schedules(one, TIER))
    for schedule in schedules:
        assert (
            emit_wgsl(replay(other, trace_to_json(schedule)).mod, TIER).digest == emit_wgsl(schedule.mod, TIER).digest
        )


def test_long_reductions_are_spread_over_a_workgroup() -> None:
    x = te.placeholder((4, 1 << 20))
    kernel = make_kernel("sum", te.create_prim_func([x, topi.sum(x, axis=1)]))
    schedule = ShortLoops().apply(schedulable_module(kernel)["main"], emit_target(TIER), False)
    (dispatch,) = emit_wgsl(schedule.mod, TIER).dispatches
    assert dispatch.grid == (4, 1, 1)
    assert emit_wgsl(schedule.mod, TIER).needs.threads == 256


def other_kernels_trace() -> str:
    return trace_to_json(next(baseline_schedules(conv2d(), TIER)))


def with_instruction(name: object, *rest: object) -> str:
    return json.dumps([[[name, *rest]], []])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: "{", id="cut"),
        pytest.param(lambda: "null", id="null"),
        pytest.param(lambda: "[]", id="no-parts"),
        pytest.param(lambda: "[1, 2]", id="numbers"),
        pytest.param(lambda: '"sch.bind"', id="string"),
        pytest.param(lambda: '{"a": [1]}', id="object"),
        pytest.param(lambda: with_instruction("System", [], ["rm -rf"], []), id="unknown-instruction"),
        pytest.param(lambda: with_instruction(5, [], [], []), id="no-name"),
        pytest.param(lambda: with_instruction("GetSBlock", [], ["root"], ["b0"]), id="few-attributes"),
        pytest.param(lambda: with_instruction("GetSBlock", ["b9"], ["root", "main"], ["b0"]), id="inputs"),
        pytest.param(lambda: with_instruction("GetLoops", ["b9"], [], ["l0"]), id="undefined-block"),
        pytest.param(lambda: with_instruction("GetSBlock", [], ["elsewhere", "main"], ["b0"]), id="unknown-block"),
        pytest.param(lambda: "[" * 100_000, id="deep"),
        pytest.param(lambda: '[[], [[0, "x"]]]', id="decision-for-nothing"),
        pytest.param(lambda: '[[["GetSBlock", [], ["root", "main"], ["b0"]]], [[-7, 1]]]', id="decision-before"),
        pytest.param(other_kernels_trace, id="another-kernels"),
    ],
)
def test_a_damaged_or_foreign_trace_is_a_trace_error(text) -> None:
    kernel = softmax()
    with pytest.raises(TraceError) as caught:
        replay(kernel, text())
    assert kernel.name in caught.value.message
    assert "tune" in caught.value.hint
    assert "\n" not in caught.value.message


def test_an_empty_trace_is_the_kernel_itself() -> None:
    kernel = matmul()
    tvm.ir.assert_structural_equal(replay(kernel, "[[], []]").mod, Schedule(schedulable_module(kernel)).mod)


def group_norm() -> Kernel:
    x, ones = te.placeholder((1, 64, 256, 256)), te.placeholder((64,))
    return make_kernel("norm", te.create_prim_func([x, ones, topi.nn.group_norm(x, ones, ones, 4, 1, [2, 3])]))


def test_a_limit_of_iterations_puts_what_may_break_it_last_and_changes_nothing_else() -> None:
    """TVM's default for an image decoder's group norms loops for long in a thread."""
    kernel, limit = group_norm(), 65535
    plain = list(baseline_schedules(kernel, TIER))
    limited = list(baseline_schedules(kernel, TIER, Quirks(max_thread_iterations=limit)))
    long = [may_exceed(emit_wgsl(schedule.mod, TIER), limit) for schedule in limited]
    assert long == sorted(long) and len(set(long)) == 2
    traces = [trace_to_json(schedule) for schedule in plain]
    assert sorted(traces) == sorted(trace_to_json(schedule) for schedule in limited)
    assert [may_exceed(emit_wgsl(schedule.mod, TIER), limit) for schedule in plain] != long


@pytest.mark.parametrize("kernel", [matmul, conv2d, group_norm], ids=["matmul", "conv2d", "norm"])
def test_without_a_limit_the_order_is_that_of_the_rules(kernel) -> None:
    """However long the loops: no driver's quirk decides what another device gets."""
    kernel = kernel()
    traces = [trace_to_json(schedule) for schedule in baseline_schedules(kernel, TIER)]
    assert traces == [
        trace_to_json(schedule) for schedule in baseline_schedules(kernel, TIER, Quirks(max_thread_iterations=1 << 40))
    ]


def test_loops_count_as_emitted_so_that_a_long_but_unrolled_convolution_stays_first() -> None:
    """Each thread makes 2,880 terms times 16 results, most of them in unrolled code."""
    x, w = te.placeholder((1, 320, 16, 16)), te.placeholder((320, 320, 3, 3))
    kernel = make_kernel("conv", te.create_prim_func([x, w, topi.nn.conv2d_nchw(x, w, 1, 1, 1)]))
    first, *_ = baseline_schedules(kernel, TIER)
    limited, *_ = baseline_schedules(kernel, TIER, Quirks(max_thread_iterations=65535))
    assert trace_to_json(first) == trace_to_json(limited)


def test_a_trace_of_a_million_instructions_is_refused_unread() -> None:
    trace = json.dumps([[["EnterPostproc", [], [], []]] * 1_000_000, []])
    with pytest.raises(TraceError, match="not made of instructions"):
        replay(matmul(), trace)


@pytest.mark.parametrize("kernel", [matmul(64, 96, 48), conv2d(), softmax()], ids=lambda kernel: kernel.name)
def test_a_driver_without_use_for_workgroup_memory_gets_schedules_without_it(kernel: Kernel) -> None:
    quirks = Quirks(lanes=64, wave=8, avoids_workgroup_memory=True)
    program, usual = (emit_wgsl(next(baseline_schedules(kernel, TIER, q)).mod, TIER) for q in (quirks, Quirks()))
    assert "workgroupBarrier" not in program.shaders[0].source and program.needs.workgroup_bytes == 0
    assert "workgroupBarrier" in usual.shaders[0].source and usual.needs.workgroup_bytes > 0
    assert len(program.dispatches) == 1
