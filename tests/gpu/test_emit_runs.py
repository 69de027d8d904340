"""Emitted programs on the adapter: untuned schedules are right, what differs from them is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tvm
from tuning_kernels import conv2d, matmul, softmax, transpose
from tvm import te, topi
from tvm.s_tir import Schedule, dlight

from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob, Measurement, Sampling
from wgtune.devices.program import Program, Shader
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import TrialState
from wgtune.tuner.capture import sincos as trigonometry
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.baseline_schedules import ShortLoops, baseline_schedules
from wgtune.tuner.codegen.grid_slices import slice_dispatches
from wgtune.tuner.codegen.targets import emit_target
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.reference.reference import make_case

TIER = TIERS["default"]


def measure(worker: Worker, kernel: Kernel, program: Program, folder: Path) -> Measurement:
    case = make_case(kernel, 0, folder)
    sampling = Sampling(min_samples=1, min_seconds=0.0)
    return worker.measure(MeasureJob(program, case.path, case.rtol, case.atol, sampling=sampling))


def kernel_of(*tensors: te.Tensor) -> Kernel:
    return make_kernel(tensors[-1].op.name, te.create_prim_func(list(tensors)))


def layer_norm() -> Kernel:
    x, gain, bias = te.placeholder((1, 77, 768)), te.placeholder((768,)), te.placeholder((768,))
    return kernel_of(x, gain, bias, topi.nn.layer_norm(x, gain, bias, [2], 1e-5))


def take() -> Kernel:
    table, ids = te.placeholder((5000, 768)), te.placeholder((77,), "int32")
    return kernel_of(table, ids, topi.take(table, ids, axis=0))


def gelu() -> Kernel:
    x = te.placeholder((77, 256))
    return kernel_of(x, te.compute(x.shape, lambda *i: x(*i) * 0.5 * (1.0 + te.erf(x(*i) * 0.70710678))))


def sinusoids() -> Kernel:
    """Without the tolerance that WGSL's own functions need."""
    x = te.placeholder((77, 160))
    return kernel_of(x, topi.add(trigonometry.sin(x), trigonometry.cos(x)))


def linear() -> Kernel:
    """As CLIP has it."""
    return matmul(77, 3072, 768)


KERNELS = [matmul, linear, conv2d, softmax, transpose, layer_norm, take, gelu, sinusoids]


@pytest.mark.parametrize("make", KERNELS, ids=[f.__name__ for f in KERNELS])
def test_every_untuned_schedule_gives_the_reference(worker: Worker, tmp_path: Path, make: Callable[[], Kernel]) -> None:
    kernel = make()
    for schedule in baseline_schedules(kernel, TIER):
        result = measure(worker, kernel, emit_wgsl(schedule.mod, TIER), tmp_path)
        assert result.state is TrialState.OK, f"{schedule.trace}\n{result.error}"


@pytest.mark.parametrize("make", [matmul, conv2d, softmax, take], ids=lambda f: f.__name__)
def test_dispatches_in_slices_of_their_grids_give_the_reference(
    worker: Worker, tmp_path: Path, make: Callable[[], Kernel]
) -> None:
    kernel = make()
    whole = emit_wgsl(next(iter(baseline_schedules(kernel, TIER))).mod, TIER)
    program = slice_dispatches(whole, 3)
    assert len(program.dispatches) > len(whole.dispatches)
    result = measure(worker, kernel, program, tmp_path)
    assert result.state is TrialState.OK, result.error
    # What no slice computes is seen.
    result = measure(worker, kernel, replace(program, dispatches=program.dispatches[1:]), tmp_path)
    assert result.state is TrialState.WRONG_RESULT


def test_a_reduction_of_many_terms_has_an_untuned_schedule_that_verifies(worker: Worker, tmp_path: Path) -> None:
    """A thread that sums all of a group norm's million terms is beyond what llvmpipe runs."""
    x, ones = te.placeholder((1, 8, 1 << 20)), te.placeholder((8,))
    kernel = kernel_of(x, ones, topi.nn.group_norm(x, ones, ones, 4, 1, [2]))
    for schedule in baseline_schedules(kernel, TIER):
        if measure(worker, kernel, emit_wgsl(schedule.mod, TIER), tmp_path).state is TrialState.OK:
            return
    pytest.fail("no untuned schedule verifies")


def test_short_loops_sum_long_rows(worker: Worker, tmp_path: Path) -> None:
    x = te.placeholder((3, 300_001))
    kernel = kernel_of(x, topi.sum(x, axis=1))
    schedule = ShortLoops().apply(schedulable_module(kernel)["main"], emit_target(TIER), False)
    assert schedule is not None
    result = measure(worker, kernel, emit_wgsl(schedule.mod, TIER), tmp_path)
    assert result.state is TrialState.OK, result.error


def test_a_grid_longer_than_a_dimension_writes_every_element(worker: Worker, tmp_path: Path) -> None:
    x = te.placeholder((70_001,))
    kernel = kernel_of(x, te.compute(x.shape, lambda i: x[i] * 2.0))
    schedule = Schedule(schedulable_module(kernel))
    (loop,) = schedule.get_loops(schedule.get_child_blocks(schedule.get_sblock("root"))[0])
    groups, thread = schedule.split(loop, [None, 1])
    schedule.bind(groups, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    program = emit_wgsl(schedule.mod, TIER)
    assert program.dispatches[0].grid[2] > 1
    assert measure(worker, kernel, program, tmp_path).state is TrialState.OK
    assert measure(worker, kernel, slice_dispatches(program, 5), tmp_path).state is TrialState.OK


def test_stages_with_scratch_between_them_give_the_reference(worker: Worker, tmp_path: Path) -> None:
    kernel = softmax()
    schedule = dlight.gpu.Fallback().apply(schedulable_module(kernel)["main"], emit_target(TIER), False)
    program = emit_wgsl(schedule.mod, TIER)
    assert program.scratch
    assert measure(worker, kernel, program, tmp_path).state is TrialState.OK


def test_half_precision_gives_the_reference(worker: Worker, tmp_path: Path) -> None:
    if "shader-f16" not in worker.device.features:
        pytest.skip("the adapter has no half precision")
    x, w = te.placeholder((64, 256), "float16"), te.placeholder((256, 64), "float16")
    kernel = kernel_of(x, w, topi.matmul(x, w))
    tier = replace(TIER, features=frozenset({"shader-f16"}))
    result = measure(worker, kernel, emit_wgsl(next(baseline_schedules(kernel, tier)).mod, tier), tmp_path)
    assert result.state is TrialState.OK, result.error


def with_source(program: Program, change: Callable[[str], str]) -> Program:
    """``program`` with its first shader changed, which must change something."""
    first, *others = program.shaders
    changed = change(first.source)
    assert changed != first.source
    return replace(program, shaders=(Shader(first.entry, changed, first.workgroup), *others))


def fewer_terms(source: str) -> str:
    """The loop over the reduction, the first of several iterations, one iteration short."""
    return re.sub(r"(\w+) < (\d\d+)u; \1 \+=", lambda m: f"{m[1]} < {int(m[2]) - 1}u; {m[1]} +=", source, count=1)


MISTAKES = {
    "a block of the reduction is left out": fewer_terms,
    "a barrier's tile is read shifted": lambda s: re.sub(r"(let t = \w+_shared\[)", r"\g<1>1u + ", s, count=1),
    "sums do not start at zero": lambda s: s.replace("0.0f", "1.0f", 1),
    "a workgroup writes nothing": lambda s: s.replace(") {\n", ") {\n  if (group.y == 0u) { return; }\n", 1),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_a_shader_are_found(worker: Worker, tmp_path: Path, mistake: Callable[[str], str]) -> None:
    kernel = matmul(64, 96, 768)
    right = emit_wgsl(next(baseline_schedules(kernel, TIER)).mod, TIER)
    assert measure(worker, kernel, right, tmp_path).state is TrialState.OK
    wrong = with_source(right, mistake)
    assert measure(worker, kernel, wrong, tmp_path).state is TrialState.WRONG_RESULT


def test_a_schedule_whose_vector_accesses_tvm_cannot_retype_still_runs(worker: Worker, tmp_path: Path) -> None:
    """A tile written four values at a time, and read one by one at indices that unrolling made multiples of eight."""
    x, y = te.placeholder((77, 2, 16)), te.placeholder((77, 2, 16))
    terms = te.reduce_axis((0, 16))
    scores = te.compute((2, 77, 77), lambda h, i, j: te.sum(x[i, h, terms] * y[j, h, terms], axis=terms))
    kernel = kernel_of(x, y, scores)
    schedule = Schedule(schedulable_module(kernel))
    (product,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    head, i, j, k = schedule.get_loops(product)
    i_thread, i_inner = schedule.split(i, [11, 7])
    j_thread, j_inner = schedule.split(j, [11, 7])
    schedule.reorder(head, i_thread, j_thread, k, i_inner, j_inner)
    schedule.bind(head, "blockIdx.x")
    schedule.bind(schedule.fuse(i_thread, j_thread), "threadIdx.x")
    tile = schedule.cache_read(product, 0, "shared")
    schedule.compute_at(tile, head)
    rounds, lanes, vector = schedule.split(schedule.fuse(*schedule.get_loops(tile)[1:]), [None, 121, 4])
    schedule.unroll(rounds)
    schedule.bind(lanes, "threadIdx.x")
    schedule.vectorize(vector)
    _, steps = schedule.split(k, [2, 8])
    schedule.unroll(steps)
    schedule.decompose_reduction(product, schedule.get_loops(product)[2])
    target = emit_target(TIER)
    with pytest.raises(tvm.error.InternalError), target:
        tvm.tirx.build(tvm.IRModule({"main": schedule.mod["main"]}), target=target)
    result = measure(worker, kernel, emit_wgsl(schedule.mod, TIER), tmp_path)
    assert result.state is TrialState.OK, result.error
