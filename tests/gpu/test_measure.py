"""Programs that behave: what is measured, and that it is verified."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sample_programs import DOUBLING, QUICK, SILENT, SIZE, job

from wgtune.devices.device import Device
from wgtune.devices.measure.job import Sampling
from wgtune.devices.measure.sampling import Samples
from wgtune.devices.program import Buffer, Dispatch, Program, Requirements, Shader
from wgtune.devices.quirks import quirks_of
from wgtune.devices.webgpu import timing
from wgtune.devices.webgpu.gpu import Step, bind, make_pipeline, open_device, read, storage_buffer, write
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import CacheState, TrialState


def test_a_good_program_is_verified_timed_and_its_samples_kept(worker: Worker, doubling: Path) -> None:
    sampling = Sampling(min_samples=7, min_seconds=0.01, max_samples=20)
    result = worker.measure(job(DOUBLING, doubling, sampling=sampling))
    assert result.state is TrialState.OK, result.error
    assert 7 <= len(result.samples_s) <= 20
    assert all(1e-9 < s < 1 for s in result.samples_s)
    assert result.max_error == 0 and result.error == ""
    assert result.timer == ("timestamp" if "timestamp-query" in worker.device.features else "wall")
    assert result.compile_s > 0 and result.run_s >= 7 * min(result.samples_s) and result.verify_s > 0


def test_twice_the_work_takes_about_twice_the_time(worker: Worker, doubling: Path) -> None:
    """A sample is of one run of the whole program, however often it was repeated within a pass."""
    once = DOUBLING.dispatches[0]
    times = []
    for count in (1, 16):
        program = replace(DOUBLING, dispatches=(once,) * count)
        samples = worker.measure(job(program, doubling, sampling=Sampling(min_seconds=0.05))).samples_s
        times.append(float(np.median(samples)))
    assert 4 < times[1] / times[0] < 64


def test_scratch_between_dispatches_and_uniforms(worker: Worker, tmp_path: Path) -> None:
    """Softmax's shape: a reduction into scratch, then a second kernel that reads it; the uniform holds the length."""
    head = """
    struct Words { n: u32, factor: u32 };
    @group(0) @binding(0) var<storage, read> a: array<f32>;
    @group(0) @binding(1) var<storage, read_write> b: array<f32>;
    """
    total = head + (
        "@group(0) @binding(2) var<uniform> w: Words; @compute @workgroup_size(1) fn total() {"
        "var s = 0.0; for (var i = 0u; i < w.n; i++) { s += a[i]; } b[0] = s * f32(w.factor); }"
    )
    spread = """
    @group(0) @binding(0) var<storage, read> t: array<f32>;
    @group(0) @binding(1) var<storage, read> a: array<f32>;
    @group(0) @binding(2) var<storage, read_write> b: array<f32>;
    @compute @workgroup_size(64) fn spread(@builtin(global_invocation_id) id: vec3<u32>) { b[id.x] = a[id.x] / t[0]; }
    """
    x, y, t = Buffer("arg", 0), Buffer("arg", 1), Buffer("scratch", 0)
    program = Program(
        (Shader("total", total, (1, 1, 1)), Shader("spread", spread, (64, 1, 1))),
        (Dispatch(0, (x, t), (1, 1, 1), (SIZE, 3)), Dispatch(1, (t, x, y), (SIZE // 64, 1, 1))),
        (4,),
        Requirements(64, (64, 1, 1), 0, 3, SIZE * 4),
    )
    values = np.arange(1, SIZE + 1, dtype=np.float32)
    case = tmp_path / "case.safetensors"
    save_file({"arg0": values, "expected1": values / (3 * values.sum())}, case)
    result = worker.measure(job(program, case, rtol=1e-4))
    assert result.state is TrialState.OK, result.error


def test_scratch_that_is_read_before_it_is_written_does_not_pass(worker: Worker, doubling: Path) -> None:
    """Fresh buffers are zeroed and would hide it; in a bundle, scratch holds whatever ran before."""
    source = (
        DOUBLING.shaders[0]
        .source.replace("2.0 * x[id.x]", "2.0 * x[id.x] + t[id.x]")
        .replace("@compute", "@group(0) @binding(2) var<storage, read> t: array<f32>; @compute")
    )
    dispatch = DOUBLING.dispatches[0]
    program = replace(
        DOUBLING,
        shaders=(Shader("main", source, (64, 1, 1)),),
        dispatches=(replace(dispatch, buffers=(*dispatch.buffers, Buffer("scratch", 0))),),
        scratch=(SIZE * 4,),
    )
    assert worker.measure(job(program, doubling)).state is TrialState.WRONG_RESULT


@pytest.mark.parametrize("dtype", ["float16", "int32", "uint32"])
def test_other_dtypes_are_poisoned_and_compared_as_what_they_are(worker: Worker, tmp_path: Path, dtype: str) -> None:
    name = {"float16": "f16", "int32": "i32", "uint32": "u32"}[dtype]
    enable = "enable f16;" if dtype == "float16" else ""
    if enable and "shader-f16" not in worker.device.features:
        pytest.skip("the adapter has no half precision")
    source = f"""{enable}
    @group(0) @binding(0) var<storage, read> x: array<{name}>;
    @group(0) @binding(1) var<storage, read_write> y: array<{name}>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
      if (id.x < LENGTH) {{ y[id.x] = x[id.x] + x[id.x]; }} }}"""
    # An odd number of two-byte elements does not fill the last four bytes.
    values = np.arange(1001).astype(dtype)
    case = tmp_path / "case.safetensors"
    save_file({"arg0": values, "expected1": values + values}, case)

    def program(length: int) -> Program:
        shader = Shader("main", source.replace("LENGTH", f"{length}u"), (64, 1, 1))
        needs = replace(DOUBLING.needs, features=("shader-f16",) if enable else ())
        return replace(DOUBLING, shaders=(shader,), needs=needs)

    assert worker.measure(job(program(1001), case)).state is TrialState.OK
    unfinished = worker.measure(job(program(1000), case))
    assert unfinished.state is TrialState.WRONG_RESULT and "1 of 1001" in unfinished.error


def test_output_of_an_earlier_run_does_not_pass_for_this_ones(worker: Worker, doubling: Path) -> None:
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    result = worker.measure(job(SILENT, doubling))
    assert result.state is TrialState.WRONG_RESULT
    assert "512 are NaN" in result.error and np.isnan(result.max_error)


def test_inputs_that_a_program_overwrites_are_fresh_for_the_next(worker: Worker, doubling: Path) -> None:
    """In-place programs are legal, and inputs are kept on the device between jobs."""
    source = DOUBLING.shaders[0].source.replace("var<storage, read> x", "var<storage, read_write> x")
    vandal = replace(DOUBLING, shaders=(Shader("main", source.replace("}", "x[id.x] = 7.0; }"), (64, 1, 1)),))
    for program in (vandal, DOUBLING, vandal, DOUBLING):
        result = worker.measure(job(program, doubling))
        assert result.state is TrialState.OK, result.error


def test_a_parameter_can_be_both_input_and_output(worker: Worker, tmp_path: Path) -> None:
    y = np.arange(SIZE, dtype=np.float32)
    case = tmp_path / "case.safetensors"
    save_file({"arg0": y, "arg1": y, "expected1": 3 * y}, case)
    source = DOUBLING.shaders[0].source.replace("y[id.x] = 2.0", "y[id.x] += 2.0")
    result = worker.measure(job(replace(DOUBLING, shaders=(Shader("main", source, (64, 1, 1)),)), case))
    assert result.state is TrialState.OK, result.error


def test_a_changed_case_file_is_read_again(worker: Worker, tmp_path: Path) -> None:
    case = tmp_path / "case.safetensors"
    for factor, state in ((2, TrialState.OK), (3, TrialState.WRONG_RESULT)):
        x = np.linspace(-1, 1, SIZE * 2 if factor == 3 else SIZE, dtype=np.float32)[:SIZE]
        save_file({"arg0": x, "expected1": factor * x, "arg9": np.zeros(factor, np.float32)}, case)
        assert worker.measure(job(DOUBLING, case)).state is state


def test_a_slow_program_is_given_up_after_its_first_run(worker: Worker, doubling: Path) -> None:
    sampling = Sampling(min_samples=50, give_up_s=1e-9, min_samples_slow=2)
    result = worker.measure(job(DOUBLING, doubling, sampling=sampling))
    assert result.state is TrialState.OK and len(result.samples_s) == 2


def test_buffers_of_128_mib(worker: Worker, tmp_path: Path) -> None:
    count = (128 << 20) // 4
    x = np.arange(count, dtype=np.float32)
    case = tmp_path / "case.safetensors"
    save_file({"arg0": x, "expected1": x + 1}, case)
    source = """
    @group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
    @group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
    @compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = x[id.x] + 1.0; }
    """
    program = Program(
        (Shader("main", source, (256, 1, 1)),),
        (Dispatch(0, (Buffer("arg", 0), Buffer("arg", 1)), (count // 1024, 1, 1)),),
        (),
        Requirements(256, (256, 1, 1), 0, 2, 128 << 20),
    )
    result = worker.measure(job(program, case, sampling=Sampling(min_samples=1, max_samples=1)))
    assert result.state is TrialState.OK, result.error


def test_peaks_bound_what_a_program_can_reach(worker: Worker, doubling: Path) -> None:
    peaks = worker.calibrate()
    assert peaks.flops_per_s > 1e8 and peaks.bytes_per_s > 1e7 and 0 < peaks.launch_s < 1e-3
    assert worker.calibrate() is peaks
    floor_s = max(SIZE / peaks.flops_per_s, 2 * SIZE * 4 / peaks.bytes_per_s) / 4
    assert worker.measure(job(DOUBLING, doubling, floor_s=floor_s)).state is TrialState.OK


def _doubling_step(gpu: Any) -> tuple[Step, Any]:
    pipeline = make_pipeline(gpu, DOUBLING.shaders[0].source, "main")
    x, y = storage_buffer(gpu, SIZE * 4), storage_buffer(gpu, SIZE * 4)
    write(gpu, x, np.ones(SIZE, np.float32))
    return Step(pipeline, bind(gpu, pipeline, [(x, 0, SIZE * 4), (y, 0, SIZE * 4)]), (SIZE // 64, 1, 1)), y


def test_without_timestamps_the_wall_clock_times(device: Device) -> None:
    gpu = open_device(device)
    step, y = _doubling_step(gpu)
    timer = timing.Timer(gpu)
    assert timer.kind == "wall"
    samples = timer.sample([step], QUICK, timer.run([step])).samples_s
    assert len(samples) >= 3 and all(0 < s < 0.1 for s in samples)
    assert (read(gpu, y, SIZE * 4).view(np.float32) == 2).all()


def test_timestamps_that_contradict_the_wall_clock_are_not_used(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "timestamp-query" not in device.features:
        pytest.skip("the adapter has no timestamps")
    gpu = open_device(device, None, ["timestamp-query"])
    step, _ = _doubling_step(gpu)
    monkeypatch.setattr(timing.layer, "timestamp_period_s", lambda gpu: 1e-3)  # a driver that counts milliseconds
    timer = timing.Timer(gpu)
    assert timer.kind == "timestamp"
    samples = timer.sample([step], QUICK, 1e-5).samples_s
    assert timer.kind == "wall" and all(0 < s < 0.1 for s in samples)


def test_samples_go_on_until_the_median_is_known(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a clock that is written here: what is sampled, when it ends, and what is kept apart."""
    timer = timing.Timer(open_device(device))
    sampling = Sampling(min_samples=5, min_seconds=0.0, max_seconds=1.0, max_samples=100)
    first_s = 0.02  # longer than a pass must be, so nothing is repeated

    def sample(times: list[float], **changes: Any) -> Samples:
        runs = iter(times)

        def run(steps: Any, repeat: int = 1) -> float:
            timer.busy_s += 1e-3
            return next(runs)

        monkeypatch.setattr(timer, "run", run)
        return timer.sample([], replace(sampling, **changes), first_s)

    steady = sample([9.0, *[1.0] * 100])
    assert steady.warmup_s == (0.02, 9.0) and steady.samples_s == (1.0,) * 6
    noisy = sample([9.0, *[1.0, 1.1] * 50])
    assert len(noisy.samples_s) == 100
    settling = sample([9.0, 1.2, 1.2, *[1.0] * 100])
    assert len(settling.samples_s) == 12  # until two outliers are outside the third from either end
    assert len(sample([9.0, *[1.0, 1.1] * 50], max_seconds=0.0195).samples_s) == 20
    assert len(sample([9.0, *[1.0, 1.1] * 50], rival_s=0.9).samples_s) == 6
    assert len(sample([9.0, *[1.0, 1.1] * 50], rival_s=1.05).samples_s) == 100
    assert sample([7.0, 8.0], give_up_s=0.01) == Samples((0.02,), (7.0,))


@pytest.mark.parametrize("features", [[], ["timestamp-query"]], ids=["wall", "timestamp"])
def test_cold_runs_do_not_count_the_emptying(device: Device, features: list[str]) -> None:
    if not set(features) <= set(device.features):
        pytest.skip("the adapter has no timestamps")
    gpu = open_device(device, None, features)
    step, y = _doubling_step(gpu)
    timer = timing.Timer(gpu)
    timer.run_cold([step])  # compiles
    before_s = timer.busy_s
    cold_s = min(timer.run_cold([step], 2) / 2 for _ in range(3))
    flushed_s = (timer.busy_s - before_s) / 6
    assert 0 < cold_s < flushed_s / 2, "4 KiB of work beside 128 MiB of emptying"
    assert (read(gpu, y, SIZE * 4).view(np.float32) == 2).all()


def test_cold_caches_are_a_matter_of_the_job(worker: Worker, doubling: Path) -> None:
    cold = Sampling(max_seconds=0.3, cache=CacheState.COLD)
    result = worker.measure(job(DOUBLING, doubling, sampling=cold))
    assert result.state is TrialState.OK and result.samples_s and len(result.warmup_s) >= 2, result.error


def test_subgroups_and_their_directive(device: Device) -> None:
    """Browsers demand `enable subgroups`, which wgpu's compiler does not know though it has subgroups."""
    if "subgroups" not in device.features:
        pytest.skip("the adapter has no subgroups")
    gpu = open_device(device, None, ["subgroups"])
    source = """enable subgroups;
    @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { y[i] = subgroupMax(f32(i)); }"""
    make_pipeline(gpu, source, "main")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what each thread did")
def test_a_software_adapter_computes_on_one_thread_per_core(worker: Worker, doubling: Path) -> None:
    """Two of its threads on one core would double the time of some trials and not of others."""
    assert worker.measure(job(DOUBLING, doubling)).state is TrialState.OK
    assert worker.pid is not None
    threads = [int(task.name) for task in Path(f"/proc/{worker.pid}/task").iterdir()]
    cores = os.sched_getaffinity(0)
    tied = [own for own in map(os.sched_getaffinity, threads) if len(own) == 1 < len(cores)]
    if quirks_of(worker.device).pinned_threads and len(cores) > 1:
        assert len(set.union(*tied)) == min(len(tied), len(cores)) > 1
    else:
        assert not tied
