"""TVM's native runtime as a way to a device, on the one device of it that every machine has: the processor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tuning_kernels import capture_of, matmul, softmax

from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.discovery.discovery import CPU, discover, select_several
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob
from wgtune.devices.measure.protocol import job_from_json, job_to_json, program_from_json, program_to_json
from wgtune.devices.program import NativeProgram
from wgtune.devices.worker.factory import TvmWorker, open_worker
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import DeviceError
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.emit import emit
from wgtune.tuner.codegen.tvm_native import NativeTier, tier_for
from wgtune.tuner.reference.reference import make_case
from wgtune.tuner.search.evolutionary import KernelSearch
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

pytestmark = pytest.mark.slow

CUDA = Device(
    "cuda:test-gpu", "cuda", "nvidia", "sm_90", "Test GPU", "", "discrete", False,
    {"maxComputeInvocationsPerWorkgroup": 1024, "maxComputeWorkgroupStorageSize": 49152}, (), Runtime.TVM_CUDA, 0,
)  # fmt: skip


@pytest.fixture(scope="module")
def cpu() -> Device:
    (found,) = [device for device in discover(more=[CPU]).devices if device.runtime is Runtime.TVM]
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def job(cpu: Device) -> MeasureJob:
    kernel, tier = matmul(), tier_for(cpu, TIERS["default"])
    case = make_case(kernel, 0)
    return MeasureJob(emit(next(baseline_schedules(kernel, tier)).mod, tier), case.path, case.rtol, case.atol)


def test_the_processor_is_only_offered_when_asked_for(cpu: Device) -> None:
    assert not [device for device in discover().devices if device.runtime is Runtime.TVM]
    assert cpu.key.startswith("tvm:cpu") and cpu.software
    assert select_several(["tvm:cpu"], [cpu]) == [cpu]
    with pytest.raises(DeviceError):
        select_several(["all"], [cpu])


def test_programs_travel(job: MeasureJob) -> None:
    assert isinstance(job.program, NativeProgram) and job.program.dispatches == ("main",)
    again = job_from_json(json.loads(json.dumps(job_to_json(job))))
    assert again == job and again.program.digest == job.program.digest
    assert program_from_json(program_to_json(job.program)) == job.program


def test_the_worker_measures_and_verifies(cpu: Device, job: MeasureJob) -> None:
    with TvmWorker(cpu) as worker:
        peaks = worker.calibrate()
        assert peaks.flops_per_s > 1e8 and peaks.bytes_per_s > 1e8 and 0 < peaks.launch_s < 1e-3
        good = worker.measure(job)
        assert good.state is TrialState.OK, good.error
        assert len(good.samples_s) >= job.sampling.min_samples and min(good.samples_s) > 0 and good.warmup_s
        assert good.max_error is not None and good.max_error <= 1e-4 and good.compile_s > 0

        wrong = worker.measure(replace(job, rtol=0.0, atol=0.0))
        assert wrong.state is TrialState.WRONG_RESULT and "parameter 3" in wrong.error and not wrong.samples_s
        assert worker.measure(replace(job, floor_s=1.0)).state is TrialState.IMPLAUSIBLE
        assert isinstance(job.program, NativeProgram)
        bad = worker.measure(replace(job, program=replace(job.program, module="{}")))
        assert bad.state is TrialState.BUILD_ERROR and "root_index" in bad.error
        unknown = worker.measure(replace(job, program=replace(job.program, target='{"kind": "nonsense"}')))
        assert unknown.state is TrialState.BUILD_ERROR and "nonsense" in unknown.error
        assert worker.measure(job).state is TrialState.OK


def test_a_program_that_leaves_its_output_is_wrong(cpu: Device, job: MeasureJob) -> None:
    empty = emit_unwritten(cpu)
    with TvmWorker(cpu) as worker:
        assert worker.measure(job).state is TrialState.OK  # the right output is on the device now
        result = worker.measure(replace(job, program=empty))
        assert result.state is TrialState.WRONG_RESULT and "NaN" in result.error


def emit_unwritten(cpu: Device) -> NativeProgram:
    """The matmul with an empty body."""
    import tvm
    from tvm import tirx

    func = matmul().func
    hollow = tirx.PrimFunc(func.params, tirx.Evaluate(0), func.ret_type, func.attrs)
    program = emit(tvm.IRModule({"main": hollow.with_attr("global_symbol", "main")}), tier_for(cpu, TIERS["default"]))
    assert isinstance(program, NativeProgram)
    return program


def test_a_session_on_the_processor(cpu: Device, tmp_path: Path) -> None:
    kernels = [matmul(), softmax()]
    ids = [kernel.id for kernel in kernels]
    request = TuneRequest(capture_of(*kernels), cpu, TIERS["default"], trials=4)

    class Silent:
        def on(self, event: object) -> None:
            pass

    with Store.open(str(tmp_path / "db")) as store:
        summary = tune(request, store, Silent())
        assert summary.measured == 2 and summary.trials[TrialState.OK] >= 4
        (session,) = store.sessions()
        assert session.info.runtime is Runtime.TVM and json.loads(session.info.target)["kind"] == "llvm"
        assert session.info.tier == "native"
        records = store.best(cpu.key, ids, runtime=Runtime.TVM)
        assert set(records) == set(ids) and all(r.runtime is Runtime.TVM for r in records.values())
        # Never in one ranking with what WGSL takes.
        assert store.best(cpu.key, ids, runtime=Runtime.WGPU) == {}


def test_search_for_cuda_keeps_the_devices_limits() -> None:
    tier = tier_for(CUDA, TIERS["default"])
    assert isinstance(tier, NativeTier) and not tier.is_cpu and json.loads(tier.target)["arch"] == "sm_90"
    kernel = matmul(256, 256, 256)
    candidates = KernelSearch(kernel, tier).propose(4)
    assert len(candidates) == 4
    for candidate in candidates:
        assert isinstance(candidate.program, NativeProgram) and 1 <= candidate.program.needs.threads <= 1024
        assert candidate.program.dispatches[0] == "main_kernel0"
    baseline = emit(next(baseline_schedules(kernel, tier)).mod, tier)
    assert baseline.needs.threads > 0 and isinstance(open_worker(CUDA, TvmWorker(CUDA).timeouts), TvmWorker)


def test_wgsl_devices_keep_the_tier_that_was_asked_for(cpu: Device) -> None:
    wgpu = replace(cpu, runtime=Runtime.WGPU, backend="vulkan")
    assert tier_for(wgpu, TIERS["desktop"]) is TIERS["desktop"]
