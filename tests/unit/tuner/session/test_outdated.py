"""Records of an older code generator: a session measures their schedules and the baseline again before it searches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tuning_kernels import capture_of, softmax

from wgtune.database.schema.records import Record, TrialKind
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob, Measurement, Peaks, Timeouts
from wgtune.devices.program import Program
from wgtune.support.enums import Runtime, TrialState
from wgtune.tuner.ir import Kernel
from wgtune.tuner.session.events import Event, TrialEnded
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

DEVICE = Device("vulkan:gpu", "vulkan", "v", "a", "gpu", "Maker 4", "discrete", False, {}, (), Runtime.WGPU, 0)
KERNEL = softmax()
TRIALS = 4


class Gpu:
    """Takes ``seconds`` of a program; a program that has none gives a wrong result."""

    def __init__(self, seconds: Callable[[Program], float | None]) -> None:
        self.seconds = seconds
        self.events: list[TrialEnded] = []

    def open(self, device: Device, timeouts: Timeouts) -> Gpu:
        return self

    def on(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self.events.append(event)

    def measure(self, job: MeasureJob) -> Measurement:
        assert isinstance(job.program, Program)
        seconds = self.seconds(job.program)
        if seconds is None:
            return Measurement(TrialState.WRONG_RESULT, error="wrong")
        return Measurement(TrialState.OK, samples_s=(seconds,) * 8, timer="wall", max_error=0.0)

    def calibrate(self) -> Peaks:
        return Peaks(1e15, 1e15, 2e-5)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A tuned kernel whose programs were made by a code generator of before."""
    with Store.open(str(tmp_path / "records.db")) as opened:
        run(opened, lambda program: 1e-3 + int(program.digest[:4], 16) * 1e-9)
        age(opened)
        yield opened


def age(store: Store) -> None:
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE trial SET program_digest = 'before' || substr(program_digest, 7)")


def run(store: Store, seconds: Callable[[Program], float | None], kernel: Kernel = KERNEL) -> list[TrialEnded]:
    gpu = Gpu(seconds)
    tune(TuneRequest(capture_of(kernel), DEVICE, TIERS["default"], trials=TRIALS), store, gpu, gpu.open)
    return gpu.events


def best(store: Store) -> Record:
    return store.best(DEVICE.key, [KERNEL.id])[KERNEL.id]


def outdated(record: Record) -> bool:
    return record.program_digest.startswith("before")


def test_the_baseline_is_measured_anew_and_the_best_schedule_again(store: Store) -> None:
    before, counts = best(store), store.counts(DEVICE.key, [KERNEL.id])[KERNEL.id]
    assert outdated(before)
    events = run(store, lambda program: 5e-4)
    assert [event.kind for event in events] == [TrialKind.BASELINE, TrialKind.CHECK]
    baseline = store.baselines(DEVICE.key, [KERNEL.id])[KERNEL.id]
    assert baseline.latency_s == 5e-4 and not outdated(baseline) and not outdated(best(store))
    assert store.counts(DEVICE.key, [KERNEL.id])[KERNEL.id] == {TrialState.OK: counts[TrialState.OK] + 2}
    assert run(store, lambda program: 5e-4) == []


def test_a_slower_baseline_of_today_takes_the_place_of_a_faster_one_of_before(store: Store) -> None:
    old = store.baselines(DEVICE.key, [KERNEL.id])[KERNEL.id]
    run(store, lambda program: 3 * old.latency_s)
    assert store.baselines(DEVICE.key, [KERNEL.id])[KERNEL.id].latency_s == pytest.approx(3 * old.latency_s)


def test_sessions_keep_what_the_device_can_do(store: Store) -> None:
    peaks = {"flops_per_s": 1e15, "bytes_per_s": 1e15, "launch_s": 2e-5}
    assert [kept.info.calibration for kept in store.sessions()] == [peaks]


def test_schedules_are_measured_again_until_the_best_one_is_known(store: Store) -> None:
    """Where today's programs are slower, times of before are not to stand above them."""
    events = run(store, lambda program: 1.0 + int(program.digest[:4], 16) * 1e-6)
    assert [event.kind for event in events] == [TrialKind.BASELINE, *[TrialKind.CHECK] * (len(events) - 1)]
    assert len(events) > 2 and not outdated(best(store))
    assert run(store, lambda program: 1.0) == []


def test_a_schedule_that_fails_as_todays_program_is_no_record_any_more(store: Store) -> None:
    events = run(store, lambda program: None)
    assert {event.state for event in events} == {TrialState.WRONG_RESULT}
    assert KERNEL.id not in store.best(DEVICE.key, [KERNEL.id])


def test_nothing_is_measured_again_whose_program_is_the_same(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "new.db")) as store:
        assert run(store, lambda program: 1e-3)
        assert run(store, lambda program: 1e-3) == []
