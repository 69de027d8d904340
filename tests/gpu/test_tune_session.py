"""Sessions on a real device: baselines, search, verification; and what fails stays with one trial."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuning_kernels import capture_of, conv2d, matmul, softmax, three_elements, transpose

from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS, Tier
from wgtune.devices.program import Program
from wgtune.support.enums import TrialState
from wgtune.support.errors import DeviceError, UsageError
from wgtune.tuner.codegen.traces import replay
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.reference.reference import NonFiniteReferenceError
from wgtune.tuner.search import task_scheduler
from wgtune.tuner.session import baselines as baselines_module
from wgtune.tuner.session import search_loop as rounds_module
from wgtune.tuner.session.events import (
    Event,
    KernelExhausted,
    KernelSkipped,
    SessionEnded,
    SessionPhase,
    SessionStarted,
    TrialEnded,
)
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

TIER = TIERS["default"]


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)

    def ended(self) -> list[TrialEnded]:
        return [event for event in self.events if isinstance(event, TrialEnded)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(f"sqlite:///{tmp_path / 'db'}") as opened:
        yield opened


def request_of(device: Device, *kernels: Any, **changes: Any) -> TuneRequest:
    return replace(TuneRequest(capture_of(*kernels), device, TIER, trials=5), **changes)


def test_every_kernel_is_baselined_searched_and_verified(device, store, monkeypatch):
    monkeypatch.setattr(task_scheduler, "ROUND", 8)  # more than the smallest kernel has programs
    kernels = [matmul(), conv2d(), softmax(), three_elements()]
    recorder = Recorder()
    request = request_of(device, *kernels, trials=8)
    summary = tune(request, store, recorder)
    ids = [kernel.id for kernel in kernels]
    best, baselines = store.best(device.key, ids), store.baselines(device.key, ids)
    assert set(best) == set(baselines) == set(ids)
    for kernel in kernels:
        assert best[kernel.id].latency_s <= baselines[kernel.id].latency_s
        program = emit_wgsl(replay(kernel, best[kernel.id].trace).mod, TIER)
        assert program.digest == best[kernel.id].program_digest
    assert isinstance(recorder.events[0], SessionStarted) and isinstance(recorder.events[-1], SessionEnded)
    ended = recorder.ended()
    assert all(event.kind is TrialKind.BASELINE for event in ended[:4])
    assert Counter(event.state for event in ended) == Counter(summary.trials)
    assert summary.outcome is SessionOutcome.COMPLETED and summary.measured == 4
    assert summary.best_s <= summary.baseline_s
    # There are fewer programs of the smallest: its trials go to the others.
    assert [event.kernel_id for event in recorder.events if isinstance(event, KernelExhausted)] == [kernels[3].id]
    assert sum(1 for event in ended if event.kind is TrialKind.SEARCH) == 32
    spent = summary.seconds
    assert {
        SessionPhase.SEARCH,
        SessionPhase.BUILD,
        SessionPhase.REFERENCE,
        SessionPhase.COMPILE,
        SessionPhase.RUN,
        SessionPhase.VERIFY,
        SessionPhase.COMMIT,
    } <= set(spent)
    assert 0.5 * summary.elapsed_s < sum(spent.values()) <= summary.elapsed_s

    recorder = Recorder()
    again = tune(request, store, recorder)
    assert again.session_id is None and [type(event) for event in recorder.events] == [SessionEnded]

    recorder = Recorder()
    more = tune(replace(request, trials=9), store, recorder)
    assert sum(more.trials.values()) == 4
    digests = Counter(t.program_digest for k in ids for t in store.tried(device.key, k) if t.program_digest)
    assert max(digests.values()) == 1


def test_what_is_narrowed_is_all_that_is_touched(device, store):
    wanted, other = transpose(), softmax()
    summary = tune(request_of(device, wanted, other, kernels=["trans*"], trials=0), store, Recorder())
    assert summary.kernels == 1
    assert set(store.counts(device.key, [wanted.id, other.id])) == {wanted.id}
    with pytest.raises(UsageError, match="no kernel of small is called 'conv'"):
        tune(request_of(device, wanted, kernels=["conv"]), store, Recorder())
    with pytest.raises(UsageError, match="no stage vae"):
        tune(request_of(device, wanted, stages=["vae"]), store, Recorder())


def test_minutes_end_a_session(device, store):
    summary = tune(request_of(device, matmul(), trials=None, minutes=0.2), store, Recorder())
    assert summary.outcome is SessionOutcome.COMPLETED
    assert 12 <= summary.elapsed_s < 120 and sum(summary.trials.values()) > 1


def test_wrong_programs_fail_one_trial_each_and_are_not_run_again(device, store, monkeypatch):
    """Every second candidate is broken on its way to the device: the session goes on, and no record comes of one."""
    kernel, broken = matmul(), []

    class Breaking(rounds_module.KernelSearch):
        def propose(self, count: int) -> list[Any]:
            found = super().propose(count)
            for index, candidate in enumerate(found[::2]):
                assert candidate.program is not None
                program = _broken(candidate.program, index)
                broken.append(program.digest)
                found[2 * index] = replace(candidate, program=program)
            return found

    monkeypatch.setattr(rounds_module, "KernelSearch", Breaking)
    recorder = Recorder()
    tune(request_of(device, kernel, trials=8), store, recorder)
    by_digest = {trial.program_digest: trial.state for trial in store.tried(device.key, kernel.id)}
    assert len(broken) == 4
    assert {by_digest[digest] for digest in broken} == {TrialState.WRONG_RESULT, TrialState.BUILD_ERROR}
    assert store.best(device.key, [kernel.id])[kernel.id].program_digest not in broken
    assert sum(1 for event in recorder.ended() if event.state is TrialState.OK) >= 4


def _broken(program: Program, index: int) -> Program:
    """The program without its last dispatch's work, or with WGSL that does not compile."""
    if index % 2:
        shader = replace(program.shaders[0], source=program.shaders[0].source + "\nnot wgsl")
        return replace(program, shaders=(shader, *program.shaders[1:]))
    return replace(program, dispatches=tuple(replace(d, grid=(0, 1, 1)) for d in program.dispatches))


def test_a_baseline_that_fails_gives_way_to_the_next(device, store, monkeypatch):
    kernel, real = matmul(), baselines_module.emit
    first: list[str] = []

    def emit_broken_first(module: Any, tier: Any) -> Program:
        program = real(module, tier)
        if not first:
            first.append("done")
            return _broken(program, 0)
        return program

    monkeypatch.setattr(baselines_module, "emit", emit_broken_first)
    recorder = Recorder()
    summary = tune(request_of(device, kernel, trials=0), store, recorder)
    assert [event.state for event in recorder.ended()] == [TrialState.WRONG_RESULT, TrialState.OK]
    assert summary.measured == 1 and kernel.id in store.baselines(device.key, [kernel.id])


def test_a_kernel_without_reference_is_left_out(device, store, monkeypatch):
    from wgtune.tuner.session import trial_runner

    bad, good, real = softmax(), transpose(), trial_runner.make_case

    def failing(kernel: Any, seed: int) -> Any:
        if kernel.id == bad.id:
            raise NonFiniteReferenceError("softmax has no finite reference")
        return real(kernel, seed)

    monkeypatch.setattr(trial_runner, "make_case", failing)
    recorder = Recorder()
    summary = tune(request_of(device, bad, good), store, recorder)
    assert summary.skipped == {bad.name: "softmax has no finite reference"}
    assert [event.kernel_id for event in recorder.events if isinstance(event, KernelSkipped)] == [bad.id]
    assert store.counts(device.key, [bad.id]) == {} and good.id in store.best(device.key, [good.id])


def test_a_device_that_is_suspended_ends_the_session_with_its_reason(device, store, monkeypatch):
    from wgtune.devices.worker.worker import Worker

    real, calls = Worker.measure, []

    def failing(worker: Worker, job: Any) -> Any:
        calls.append(job)
        if len(calls) == 3:
            raise DeviceError("the device is suspended", "restart the machine")
        return real(worker, job)

    monkeypatch.setattr(Worker, "measure", failing)
    kernel = matmul()
    with pytest.raises(DeviceError, match="suspended"):
        tune(request_of(device, kernel), store, Recorder())
    (record,) = store.sessions()
    assert record.outcome is SessionOutcome.FAILED and "suspended" in record.note
    assert store.counts(device.key, [kernel.id])[kernel.id][TrialState.ABANDONED] == 1


def test_a_kernel_beyond_the_tier_is_left_out_with_its_reason(device, store):
    narrow = Tier("narrow", {**TIER.limits, "maxStorageBufferBindingSize": 16384})
    big, small = softmax(), matmul(16, 16, 16)
    request = request_of(device, big, small, tier=narrow)
    for trials in (2, 0):  # the second run knows it from the database, and tries nothing
        recorder = Recorder()
        summary = tune(request, store, recorder)
        assert list(summary.skipped) == [big.name] and "maxStorageBufferBindingSize" in summary.skipped[big.name]
        assert sum(1 for event in recorder.ended() if event.kernel_id == big.id) <= 4 * (trials > 0)
    assert store.counts(device.key, [big.id])[big.id].keys() == {TrialState.BUILD_ERROR}
    wide = tune(replace(request, tier=TIER, trials=0), store, Recorder())
    assert wide.measured == 2 and wide.skipped == {}
