"""Sessions that prepare the next candidates while one is measured, on a worker that measures when it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tuning_kernels import capture_of, matmul, softmax, transpose

from wgtune.database.schema.records import SessionOutcome, TrialEnd, TrialKind, TrialStart
from wgtune.database.schema.rows import trial, workload
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob, Measurement, Peaks, Timeouts
from wgtune.devices.program import Program
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import DeviceError
from wgtune.support.signals import Interrupted
from wgtune.tuner.reference.reference import NonFiniteReferenceError
from wgtune.tuner.session import search_loop, trial_runner
from wgtune.tuner.session.events import Event, SessionPhase, TrialEnded
from wgtune.tuner.session.phase_timer import PhaseTimer
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

DEVICE = Device("vulkan:gpu", "vulkan", "v", "a", "gpu", "1", "discrete", False, {}, (), Runtime.WGPU, 0)
PATIENCE_S = 60
"""A wait of this length means that what is waited for never happens."""


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)

    def ended(self) -> list[TrialEnded]:
        return [event for event in self.events if isinstance(event, TrialEnded)]


class Gpu:
    """Measures a program as fast as its text is short; ``before`` each of them, counted from 0, a test may act."""

    def __init__(self, before: Callable[[int], Measurement | None] = lambda number: None) -> None:
        self.before = before
        self.jobs: list[str] = []
        self.upcoming: list[str | None] = []
        self.measuring = threading.Event()

    def open(self, device: Device, timeouts: Timeouts) -> Gpu:
        return self

    def measure(self, job: MeasureJob) -> Measurement:
        self.jobs.append(job.program.digest)
        self.upcoming.append(job.upcoming.digest if job.upcoming else None)
        self.measuring.set()
        try:
            answer = self.before(len(self.jobs) - 1)
        finally:
            self.measuring.clear()
        assert isinstance(job.program, Program)
        seconds = len(job.program.shaders[0].source) * 1e-6
        return answer or Measurement(TrialState.OK, samples_s=(seconds,) * 8, timer="wall", max_error=0.0)

    def calibrate(self) -> Peaks:
        return Peaks(1e15, 1e15)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'db'}") as opened:
        yield opened


@pytest.fixture
def proposals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The thread and the programs of each proposal; a semaphore on it counts them, too."""
    made: list[tuple[str, list[str]]] = Proposals()

    class Watched(search_loop.KernelSearch):
        def propose(self, count: int) -> list[Any]:
            found = super().propose(count)
            made.append((threading.current_thread().name, [c.program.digest for c in found if c.program]))
            made.count.release()  # type: ignore[attr-defined]
            return found

    monkeypatch.setattr(search_loop, "KernelSearch", Watched)
    return made


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Counts references."""
    count, real = threading.Semaphore(0), trial_runner.make_case

    def counted(kernel: Any, seed: int) -> Any:
        case = real(kernel, seed)
        count.release()
        return case

    monkeypatch.setattr(trial_runner, "make_case", counted)
    return count


class Proposals(list[tuple[str, list[str]]]):
    def __init__(self) -> None:
        super().__init__()
        self.count = threading.Semaphore(0)


def request_of(*kernels: Any, **changes: Any) -> TuneRequest:
    return replace(TuneRequest(capture_of(*kernels), DEVICE, TIERS["default"], trials=8), **changes)


def assert_booked(store: Store, kernels: list[Any], jobs: list[str]) -> None:
    """Every program that went to the device is one trial, and no other is; none went twice."""
    tried = Counter(t.program_digest for k in kernels for t in store.tried(DEVICE.key, k.id) if t.program_digest)
    assert tried == Counter(jobs) and max(tried.values()) == 1


def test_the_next_round_is_proposed_while_one_is_measured(store: Store, proposals: Any) -> None:
    """The first search trial is not answered before a second proposal was made: without overlap it never would be."""

    def wait_for_a_second_proposal(number: int) -> None:
        if number == 1:  # 0 is the baseline
            assert proposals.count.acquire(timeout=PATIENCE_S) and proposals.count.acquire(timeout=PATIENCE_S)

    gpu, kernel, recorder = Gpu(wait_for_a_second_proposal), matmul(), Recorder()
    summary = tune(request_of(kernel), store, recorder, gpu.open)
    assert summary.outcome is SessionOutcome.COMPLETED
    assert [len(programs) for _, programs in proposals] == [4, 4]
    assert {thread for thread, _ in proposals} == {"prefetch_0"}
    assert gpu.jobs[1:] == [program for _, programs in proposals for program in programs]
    assert_booked(store, [kernel], gpu.jobs)
    # What was done meanwhile is told, and counted once.
    assert summary.overlapped[SessionPhase.SEARCH] > 0
    assert sum(summary.seconds.values()) <= summary.elapsed_s
    assert store.sessions()[0].info.budget["overlap"] is True


def test_the_next_kernels_baseline_and_reference_are_prepared_while_one_is_measured(
    store: Store, computed: threading.Semaphore
) -> None:
    def wait_for_both(number: int) -> None:
        if number == 0:
            assert computed.acquire(timeout=PATIENCE_S) and computed.acquire(timeout=PATIENCE_S)

    kernels = [matmul(), softmax()]
    summary = tune(request_of(*kernels, trials=0), store, Recorder(), Gpu(wait_for_both).open)
    assert summary.measured == 2 and not computed.acquire(blocking=False)


def test_each_job_names_the_program_that_comes_after_it(store: Store, proposals: Any) -> None:
    """So that a worker can compile it meanwhile; between rounds as well, where the next is proposed in time."""

    def wait_for_the_next_round(number: int) -> None:
        if number == 4:  # the last of the first round; 0 is the baseline
            assert proposals.count.acquire(timeout=PATIENCE_S) and proposals.count.acquire(timeout=PATIENCE_S)

    gpu = Gpu(wait_for_the_next_round)
    tune(request_of(matmul()), store, Recorder(), gpu.open)
    assert gpu.upcoming[1:4] == gpu.jobs[2:5] and gpu.upcoming[5:-1] == gpu.jobs[6:]
    assert gpu.upcoming[0] is None and gpu.upcoming[4] in (None, gpu.jobs[5]) and gpu.upcoming[-1] is None


def test_baselines_name_the_next_kernels_too(store: Store, computed: threading.Semaphore) -> None:
    def wait_for_all_references(number: int) -> None:
        if number == 0:
            for _ in range(3):
                assert computed.acquire(timeout=PATIENCE_S)

    gpu = Gpu(wait_for_all_references)
    tune(request_of(matmul(), softmax(), transpose(), trials=0), store, Recorder(), gpu.open)
    assert gpu.upcoming[0] in (None, gpu.jobs[1]) and gpu.upcoming[1:] == [gpu.jobs[2], None]


def test_on_a_software_adapter_nothing_runs_beside_a_measurement(store: Store, proposals: Any) -> None:
    software = replace(DEVICE, software=True)
    gpu = Gpu()
    real, beside = search_loop.KernelSearch.propose, []

    def propose(search: Any, count: int) -> Any:
        beside.append(gpu.measuring.is_set())
        return real(search, count)

    search_loop.KernelSearch.propose = propose  # type: ignore[method-assign]  # the fixture's class, which goes with it
    summary = tune(request_of(matmul(), device=software), store, Recorder(), gpu.open)
    assert set(gpu.upcoming) == {None}
    assert beside == [False, False] and {thread for thread, _ in proposals} == {threading.main_thread().name}
    assert summary.overlapped == {}
    assert request_of(matmul(), device=software, overlap=True).overlapping
    assert not request_of(matmul(), overlap=False).overlapping


def test_what_is_proposed_depends_on_answers_alone(tmp_path: Path) -> None:
    """However long measurements take, the same answers lead to the same programs in the same order."""
    jobs = []
    for run in range(2):
        pause = threading.Event()
        gpu = Gpu(lambda number, run=run, pause=pause: pause.wait(0.1 * run * (number % 2)) and None)  # type: ignore[misc]
        with Store.open(f"sqlite:///{tmp_path / f'db{run}'}") as store:
            tune(request_of(matmul(), softmax(), trials=8), store, Recorder(), gpu.open)
        jobs.append(gpu.jobs)
    assert jobs[0] == jobs[1] and len(jobs[0]) == 18


def test_trials_of_several_kernels_end_as_they_do_without_overlap(store: Store) -> None:
    """The transpose knows four schedules: its trials go to the others, and the budget is spent to the last."""
    kernels, recorder, gpu = [matmul(), softmax(), transpose()], Recorder(), Gpu()
    summary = tune(request_of(*kernels), store, recorder, gpu.open)
    ended = recorder.ended()
    assert all(event.kind is TrialKind.BASELINE for event in ended[:3]) and summary.trials_left == 0
    assert sum(1 for event in ended if event.kind is TrialKind.SEARCH) == 24
    assert_booked(store, kernels, gpu.jobs)
    assert tune(request_of(*kernels), store, Recorder(), gpu.open).session_id is None


@pytest.mark.parametrize("error", [Interrupted(), DeviceError("the device is suspended", "restart the machine")])
def test_nothing_is_lost_or_done_twice_when_a_session_is_cut_off(
    store: Store, proposals: Any, error: Exception
) -> None:
    """It ends while the next round is prepared; the same request goes on, and tries that round's programs as well."""

    def cut_off(number: int) -> None:
        if number == 2:
            assert proposals.count.acquire(timeout=PATIENCE_S) and proposals.count.acquire(timeout=PATIENCE_S)
            raise error

    kernel, gpu = matmul(), Gpu(cut_off)
    if isinstance(error, DeviceError):
        with pytest.raises(DeviceError, match="suspended"):
            tune(request_of(kernel), store, Recorder(), gpu.open)
    else:
        assert tune(request_of(kernel), store, Recorder(), gpu.open).interrupted
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    states = store.counts(DEVICE.key, [kernel.id])[kernel.id]
    assert states == {TrialState.OK: 2, TrialState.ABANDONED: 1}
    again = Gpu()
    tune(request_of(kernel), store, Recorder(), again.open)
    finished = gpu.jobs[:2] + again.jobs
    assert len(finished) == len(set(finished)) == 9, "one baseline and eight search trials"


def test_a_crash_is_booked_on_what_was_measured_not_on_what_was_prepared(store: Store, proposals: Any) -> None:
    crashed = Measurement(TrialState.RUN_ERROR, error="the worker process was ended by SIGSEGV")
    gpu, kernel = Gpu(lambda number: crashed if number == 3 else None), matmul()
    tune(request_of(kernel), store, Recorder(), gpu.open)
    failed = [t.program_digest for t in store.tried(DEVICE.key, kernel.id) if t.state is TrialState.RUN_ERROR]
    assert failed == [gpu.jobs[3]]
    assert_booked(store, [kernel], gpu.jobs)


def test_an_exception_of_the_preparing_thread_ends_the_session_where_it_is_needed(store: Store, proposals: Any) -> None:
    """The second proposal fails while the first is measured: that is measured to its end first."""
    real = search_loop.KernelSearch.propose

    def failing(search: Any, count: int) -> Any:
        if proposals:
            raise MemoryError("no memory for the pool")
        return real(search, count)

    search_loop.KernelSearch.propose = failing  # type: ignore[method-assign]  # the fixture's class, which goes with it
    gpu, kernel = Gpu(), matmul()
    with pytest.raises(MemoryError, match="pool"):
        tune(request_of(kernel), store, Recorder(), gpu.open)
    assert len(gpu.jobs) == 5
    (session,) = store.sessions()
    assert session.outcome is SessionOutcome.FAILED and "no memory for the pool" in session.note
    assert_booked(store, [kernel], gpu.jobs)


def test_a_kernel_whose_reference_fails_ahead_is_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good, real = softmax(), matmul(), trial_runner.make_case

    def failing(kernel: Any, seed: int) -> Any:
        if kernel.id == bad.id:
            raise NonFiniteReferenceError("softmax has no finite reference")
        return real(kernel, seed)

    monkeypatch.setattr(trial_runner, "make_case", failing)
    summary = tune(request_of(good, bad, trials=4), store, Recorder(), Gpu().open)
    assert summary.skipped == {bad.name: "softmax has no finite reference"} and summary.measured == 1
    assert store.counts(DEVICE.key, [bad.id]) == {}


def test_what_was_prepared_is_dropped_when_another_tuner_was_at_the_kernel(store: Store, proposals: Any) -> None:
    """While one kernel's round is measured, another tuner measures the first program that is prepared of the other."""
    kernels, stolen = [matmul(), softmax()], []

    def another_tuner(number: int) -> None:
        if number == 2:  # 0 and 1 are the baselines
            assert proposals.count.acquire(timeout=PATIENCE_S) and proposals.count.acquire(timeout=PATIENCE_S)
            stolen.append(proposals[1][1][0])
            (other,) = [k for k in kernels if k.id != running(store)]
            measured_elsewhere(store, other.id, stolen[0])

    gpu = Gpu(another_tuner)
    tune(request_of(*kernels), store, Recorder(), gpu.open)
    assert stolen[0] not in gpu.jobs
    assert len(gpu.jobs) == len(set(gpu.jobs)) == 17, "two baselines, and fifteen of sixteen search trials"
    assert_booked(store, kernels, [*gpu.jobs, *stolen])


def test_time_that_the_session_waited_is_its_own_and_the_rest_passed_beside_it() -> None:
    timer = PhaseTimer()
    timer.add_background({SessionPhase.SEARCH: 3.0, SessionPhase.BUILD: 1.0}, 1.0)
    assert timer.seconds == {SessionPhase.SEARCH: 0.75, SessionPhase.BUILD: 0.25}
    assert timer.overlapped == {SessionPhase.SEARCH: 2.25, SessionPhase.BUILD: 0.75}
    timer.add_background({SessionPhase.SEARCH: 1.0}, 9.0)  # behind other work in the queue
    assert timer.seconds[SessionPhase.SEARCH] == 1.75 and timer.overlapped[SessionPhase.SEARCH] == 2.25


def running(store: Store) -> str:
    """The kernel of the trial that is under way."""
    with store.reading() as connection:
        row = select(workload.c.digest).join(trial).where(trial.c.state == TrialState.RUNNING)
        return connection.execute(row).scalar_one()


def measured_elsewhere(store: Store, kernel_id: str, digest: str) -> None:
    session = store.begin_session(store.sessions()[0].info)
    start = TrialStart(session, kernel_id, TrialKind.SEARCH, "[[],[]]", digest, {}, 1, 0)
    store.end_trial(store.begin_trial(start), TrialEnd(state=TrialState.WRONG_RESULT, error="by another tuner"))
    store.end_session(session, SessionOutcome.COMPLETED)
