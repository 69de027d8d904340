"""Scheduled TensorIR as WGSL programs: bindings, launches, scratch, requirements, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tvm
from tuning_kernels import matmul, softmax
from tvm import te, topi
from tvm.s_tir import Schedule, dlight

from wgtune.devices.limits import TIERS
from wgtune.devices.program import Buffer, Program
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.targets import emit_target, workgroup_limits
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.codegen.wgsl import EmitError, emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules.matmul import matmul as matmul_rule

TIER = TIERS["default"]


def fallback(kernel: Kernel) -> Program:
    """Each stage as a kernel of its own."""
    return emit_wgsl(
        dlight.gpu.Fallback().apply(schedulable_module(kernel)["main"], emit_target(TIER), False).mod, TIER
    )


def elementwise(extent: int, dtype: str = "float32", scale: float = 2.0) -> Kernel:
    x = te.placeholder((extent,), dtype)
    return make_kernel(
        "scale", te.create_prim_func([x, te.compute(x.shape, lambda i: x[i] * tvm.tirx.const(scale, dtype))])
    )


def bound(kernel: Kernel, block: str = "blockIdx.x", thread: str = "threadIdx.x", threads: int = 64) -> tvm.IRModule:
    """A one-loop kernel on the given thread axes."""
    schedule = Schedule(schedulable_module(kernel))
    (loop,) = schedule.get_loops(schedule.get_child_blocks(schedule.get_sblock("root"))[0])
    outer, inner = schedule.split(loop, [None, threads])
    schedule.bind(outer, block)
    schedule.bind(inner, thread)
    return schedule.mod


def test_one_kernel_binds_the_parameters_in_the_shaders_order() -> None:
    program = emit_wgsl(next(baseline_schedules(matmul(), TIER)).mod, TIER)
    (dispatch,) = program.dispatches
    assert sorted(b.index for b in dispatch.buffers) == [0, 1, 2, 3]
    assert {b.kind for b in dispatch.buffers} == {"arg"}
    source = program.shaders[0].source
    assert [f"@binding({i})" in source for i in range(4)] == [True] * 4
    assert "@binding(4)" not in source
    written = dispatch.buffers.index(Buffer("arg", 3))
    assert f"@binding({written}) var<storage, read_write>" in source
    assert source.count("read_write") == 1


def test_stages_become_dispatches_with_scratch_between_them() -> None:
    program = fallback(softmax())
    assert len(program.dispatches) == 3
    assert program.scratch == (12 * 77 * 4, 12 * 77 * 4)
    first, second, third = program.dispatches
    assert Buffer("scratch", 0) in first.buffers and Buffer("scratch", 0) in second.buffers
    assert set(third.buffers) == {Buffer("arg", 0), Buffer("arg", 1), Buffer("scratch", 0), Buffer("scratch", 1)}
    assert [d.uniform for d in program.dispatches] == [(), (), ()]


def test_the_module_stays_as_it_was_and_the_text_is_the_same_each_time() -> None:
    mod = next(baseline_schedules(matmul(), TIER)).mod
    before = mod.script()
    assert emit_wgsl(mod, TIER) == emit_wgsl(mod, TIER)
    assert mod.script() == before


def test_the_functions_own_name_and_target_do_not_show() -> None:
    mod = next(baseline_schedules(matmul(), TIER)).mod
    renamed = mod["main"].with_attr("global_symbol", "fused_linear7").with_attr("target", tvm.target.Target("llvm"))
    program = emit_wgsl(tvm.IRModule({"main": renamed}), TIER)
    assert program.digest == emit_wgsl(mod, TIER).digest
    assert "fused_linear7" not in program.shaders[0].source and "//" not in program.shaders[0].source


def test_requirements_are_what_the_program_uses() -> None:
    program = emit_wgsl(next(baseline_schedules(matmul(64, 96, 48), TIER)).mod, TIER)
    x, y, z = program.shaders[0].workgroup
    assert f"@workgroup_size({x}, {y}, {z})" in program.shaders[0].source
    assert program.needs.threads == x * y * z
    space = matmul_rule(schedulable_module(matmul(64, 96, 48)), workgroup_limits(TIER))
    assert space is not None
    chosen = space.defaults
    rows, columns = (chosen[f"thread_{side}"] * chosen[f"threads_{side[0]}"] for side in ("rows", "columns"))
    assert program.needs.workgroup_bytes == (rows + columns) * chosen["step"] * 4
    assert program.needs.storage_buffers == 4
    assert program.needs.binding_bytes == 64 * 96 * 4
    assert program.needs.features == ()


def test_half_precision_asks_for_its_feature() -> None:
    kernel = elementwise(256, "float16")
    assert emit_wgsl(bound(kernel), TIER).needs.features == ("shader-f16",)
    with pytest.raises(EmitError, match="shader-f16 is not in the tier"):
        emit_wgsl(bound(kernel), replace(TIER, features=frozenset()))


def test_a_long_grid_is_spread_over_x_and_z() -> None:
    program = emit_wgsl(bound(elementwise(70_001), threads=1), TIER)
    assert program.dispatches[0].grid == (35_001, 1, 2)
    source = program.shaders[0].source
    assert (
        "(group.z * 35001u + group.x)" in source and "if (group.z * 35001u + group.x >= 70001u) { return; }" in source
    )


@pytest.mark.parametrize(
    ("mod", "complaint"),
    [
        pytest.param(lambda: bound(elementwise(256), block="blockIdx.z"), "blockIdx.z", id="blockIdx.z"),
        pytest.param(lambda: bound(elementwise(1 << 20), block="blockIdx.y", threads=8), "PerDimension", id="long-y"),
        pytest.param(lambda: bound(elementwise(1 << 12), threads=512), "Invocations.* 512 exceeds 256", id="threads"),
        pytest.param(lambda: bound(elementwise(256), thread="threadIdx.z", threads=128), "SizeZ 128", id="threadIdx.z"),
        pytest.param(lambda: bound(elementwise(1 << 26)), "BindingSize 268435456 exceeds", id="binding"),
        pytest.param(lambda: schedulable_module(matmul()), "leaves work to the host", id="no-thread"),
        pytest.param(lambda: bound(elementwise(256, "int8", 2)), "int8", id="int8"),
        pytest.param(lambda: bound(elementwise(256, "float64")), "float64", id="float64"),
        pytest.param(lambda: bound(elementwise(256, scale=float("inf"))), "constant inf, which WGSL", id="infinity"),
    ],
)
def test_what_webgpu_cannot_run_is_an_emit_error(mod, complaint: str) -> None:
    with pytest.raises(EmitError, match=complaint):
        emit_wgsl(mod(), TIER)


def test_too_many_bindings_name_the_limit() -> None:
    inputs = [te.placeholder((64,)) for _ in range(8)]
    total = te.compute((64,), lambda i: sum(x[i] for x in inputs[1:]) + inputs[0][i])
    kernel = make_kernel("sum", te.create_prim_func([*inputs, total]))
    with pytest.raises(EmitError, match="maxStorageBuffersPerShaderStage 9 exceeds 8"):
        emit_wgsl(next(baseline_schedules(kernel, TIER)).mod, TIER)
    assert (
        emit_wgsl(next(baseline_schedules(kernel, TIERS["desktop"])).mod, TIERS["desktop"]).needs.storage_buffers == 9
    )


def test_too_much_workgroup_memory_names_the_limit() -> None:
    schedule = Schedule(schedulable_module(elementwise(8192)))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    outer, inner = schedule.split(schedule.get_loops(block)[0], [1, None])
    _, threads = schedule.split(inner, [None, 64])
    cached = schedule.cache_read(block, 0, "shared")
    schedule.bind(outer, "blockIdx.x")
    schedule.bind(threads, "threadIdx.x")
    schedule.compute_at(cached, outer)
    _, lanes = schedule.split(schedule.get_loops(cached)[-1], [None, 64])
    schedule.bind(lanes, "threadIdx.x")
    with pytest.raises(EmitError, match="maxComputeWorkgroupStorageSize 32768 exceeds 16384"):
        emit_wgsl(schedule.mod, TIER)


def test_all_baselines_of_a_conv_emit_within_the_default_tier() -> None:
    x, w, b = te.placeholder((1, 64, 32, 32)), te.placeholder((64, 64, 3, 3)), te.placeholder((1, 64, 1, 1))
    conv = topi.add(topi.nn.conv2d_nchw(x, w, 1, 1, 1), b)
    kernel = make_kernel("conv2d_add", te.create_prim_func([x, w, b, conv]))
    for schedule in baseline_schedules(kernel, TIER):
        assert not TIER.violations(emit_wgsl(schedule.mod, TIER).needs)


def test_conditions_are_evaluated_without_branches() -> None:
    x = te.placeholder((1, 8, 16, 16))
    padded = topi.nn.pad(x, (0, 0, 1, 1), (0, 0, 1, 1))
    program = fallback(make_kernel("pad", te.create_prim_func([x, padded])))
    source = "".join(shader.source for shader in program.shaders)
    assert " & " in source and "&&" not in source and "||" not in source
    assert "select(" in source and "condval = " not in source
