"""A program in quarantine is never sent to a worker again, and search goes on without it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_store import session
from tuning_kernels import matmul

from wgtune.database.schema.records import TrialKind
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import Measurement, Peaks
from wgtune.support.enums import QUARANTINE_AFTER, CacheState, TrialState
from wgtune.support.signals import Interrupts
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.session.context import TrialContext
from wgtune.tuner.session.events import Event
from wgtune.tuner.session.phase_timer import PhaseTimer
from wgtune.tuner.session.prefetch import Prefetcher
from wgtune.tuner.session.registration import register_model
from wgtune.tuner.session.trial import Attempt
from wgtune.tuner.session.trial_runner import TrialRecorder


class Deadly:
    """A worker that every program takes down."""

    jobs = 0

    def measure(self, job) -> Measurement:
        self.jobs += 1
        return Measurement(TrialState.RUN_TIMEOUT, error="running did not end within 20 s")

    def calibrate(self) -> Peaks:
        return Peaks(1e12, 1e12)

    def close(self) -> None: ...


class Silent:
    def on(self, event: Event) -> None: ...


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


def test_after_enough_crashes_nothing_is_run_and_nothing_is_booked(tmp_path):
    from tuning_kernels import capture_of

    kernel = matmul()
    schedule = next(iter(baseline_schedules(kernel, TIERS["default"])))
    attempt = Attempt(TrialKind.TRANSFER, trace_to_json(schedule), emit_wgsl(schedule.mod, TIERS["default"]), "")
    other = replace(attempt, trace="another", program=replace(attempt.program, scratch=(16,)))
    worker = Deadly()
    with Store.open(str(tmp_path / "x.db")) as store, Interrupts() as interrupts:
        register_model(store, capture_of(kernel), 20)
        timer = PhaseTimer()
        prefetcher = Prefetcher(timer, overlapping=False)
        context = TrialContext(store, Silent(), interrupts, timer, prefetcher, 0, CacheState.WARM)
        for number in range(QUARANTINE_AFTER + 1):
            recorder = TrialRecorder(context, store.begin_session(session()), worker, worker.calibrate())
            outcome = recorder.measure(kernel, attempt)
            assert outcome.state is TrialState.RUN_TIMEOUT and outcome.latency_s is None
            assert ("quarantine" in outcome.error) == (number >= QUARANTINE_AFTER)
        assert worker.jobs == QUARANTINE_AFTER
        assert len(store.tried("vulkan:llvmpipe", kernel.id)) == QUARANTINE_AFTER
        recorder.measure(kernel, other)
        assert worker.jobs == QUARANTINE_AFTER + 1, "others of the kernel are not to blame"
