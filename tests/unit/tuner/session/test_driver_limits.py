"""Sessions on a driver that ends long loops, made up here, and on one that does not: baselines, transfers, search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_store import RADEON, ok, session
from tuning_kernels import capture_of, conv2d
from tvm import te, topi

from wgtune.database.schema.records import TrialKind, TrialStart, WorkloadInfo
from wgtune.database.store import Store
from wgtune.devices import quirks
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob, Measurement, Peaks, Timeouts
from wgtune.devices.program import Program
from wgtune.devices.quirks import DriverMatch, Quirk, Quirks
from wgtune.devices.wgsl_loops import may_exceed, surely_exceeds
from wgtune.support.enums import Runtime, TrialState
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

TIER = TIERS["default"]
DEVICE = Device("vulkan:gpu", "vulkan", "v", "a", "gpu", "Maker 4", "discrete", False, {}, (), Runtime.WGPU, 0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "records.db")) as opened:
        yield opened


@pytest.fixture(params=[True, False], ids=["its driver", "another driver"])
def limited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the quirk is of the driver of `DEVICE`."""
    drivers = DriverMatch("^gpu$" if request.param else "^another$", version=r"Maker (\d+)", before=(5,))
    effect = Quirks(max_thread_iterations=40)
    monkeypatch.setattr(quirks, "QUIRKS", (Quirk(drivers, "what", "reason", "seen", "remedy", effect),))
    return bool(request.param)


class Gpu:
    """Every program is right, and takes a millisecond."""

    def __init__(self) -> None:
        self.programs: list[Program] = []

    def open(self, device: Device, timeouts: Timeouts) -> Gpu:
        return self

    def measure(self, job: MeasureJob) -> Measurement:
        assert isinstance(job.program, Program)
        self.programs.append(job.program)
        return Measurement(TrialState.OK, samples_s=(1e-3,) * 8, timer="wall", max_error=0.0)

    def calibrate(self) -> Peaks:
        return Peaks(1e15, 1e15)

    def close(self) -> None: ...


def tuned(store: Store, kernel: Kernel, trials: int) -> list[Program]:
    gpu = Gpu()
    tune(TuneRequest(capture_of(kernel), DEVICE, TIER, trials=trials), store, opener=gpu.open)
    return gpu.programs


def long_product() -> Kernel:
    """A product whose threads loop over hundreds of terms or more, but for 32 in the schedule of short loops."""
    a, b = te.placeholder((16, 8192)), te.placeholder((8192, 16))
    return make_kernel("product", te.create_prim_func([a, b, topi.nn.matmul(a, b)]))


def test_the_baseline_is_one_that_keeps_the_drivers_limit(store: Store, limited: bool) -> None:
    kernel = long_product()
    default = emit_wgsl(next(baseline_schedules(kernel, TIER)).mod, TIER)
    [baseline] = tuned(store, kernel, 0)
    assert may_exceed(default, 40)
    assert may_exceed(baseline, 40) is not limited and (baseline == default) is not limited


def test_search_makes_no_trial_of_what_the_driver_would_end(store: Store, limited: bool) -> None:
    _, *searched = tuned(store, conv2d(), 32)
    assert len(searched) == 32
    assert any(surely_exceeds(program, 40) for program in searched) is not limited


def test_no_schedule_of_another_device_is_tried_that_the_driver_would_end(store: Store, limited: bool) -> None:
    kernel = long_product()
    *_, schedule = baseline_schedules(kernel, TIER)
    program = emit_wgsl(schedule.mod, TIER)
    assert surely_exceeds(program, 40)
    store.add_workloads([WorkloadInfo(kernel.id, kernel.name, kernel.text, (), (), (), 0.0, 0)])
    number = store.begin_session(session(RADEON))
    needs = program.to_json()["needs"]
    store.add_trial(
        TrialStart(number, kernel.id, TrialKind.SEARCH, trace_to_json(schedule), program.digest, needs, 1, 0), ok(1e-3)
    )
    assert (program in tuned(store, kernel, 0)) is not limited
