"""One trial from begin to end: committed as running, measured and verified by the worker, committed as ended."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass

from ...database.queries.health import crashes
from ...database.schema.records import TrialEnd, TrialKind, TrialStart
from ...database.store import Store
from ...devices.measure.job import MeasureJob, Measurement, Peaks, Sampling
from ...devices.program import AnyProgram
from ...devices.worker.factory import MeasuringWorker
from ...support.enums import QUARANTINE_AFTER, CacheState, TrialState
from ..ir import Kernel
from ..reference.reference import Case, NonFiniteReferenceError, make_case
from ..reference.roofline import floor_seconds
from ..search.features import VERSION
from ..search.task_scheduler import KernelProgress
from .context import SessionContext, TrialContext
from .drift import DriftWatch, suitability
from .events import Drifted, PhaseStarted, SessionPhase, TrialEnded, TrialStarted
from .phase_timer import PhaseTimer
from .prefetch import Prefetched
from .trial import Attempt, Outcome, stored_attempt

_LONG_S = 0.02
"""A run of this length varies little, and repeating it is what takes a session's time: fewer samples, sooner ended."""

_GIVE_UP_RATIO = 5.0
_GIVE_UP_RATIO_LONG = 1.5
"""A candidate whose first run takes this many times the best latency gets one sample; for short and for long runs."""

_RIVAL_RATIO = 1.5
"""A candidate that is surely this many times slower than the best gets no further samples."""

_MIN_GIVE_UP_S = 0.001
"""No first run below this ends sampling: short runs cost nothing, and a first run of a few µs says little."""


class TrialRecorder:
    """Measures attempts on one worker and commits each as a trial of one session.

    Args:
        context: store, listener and settings.
        session_id: the session that the trials belong to.
        worker: measures; already started.
        peaks: of the device, for the shortest believable time of a kernel.

    Attributes:
        session_id: as given.
        peaks: as given.
        states: number of trials of this session by the state in which they ended.
    """

    def __init__(self, context: TrialContext, session_id: int, worker: MeasuringWorker, peaks: Peaks) -> None:
        self._context = context
        self.session_id = session_id
        self._worker = worker
        self.peaks = peaks
        self._cases: dict[str, Case] = {}
        self._prepared_cases: dict[str, Prefetched[Case]] = {}
        self._quarantine = Quarantine(context.store, session_id)
        self.states: Counter[TrialState] = Counter()

    def prepare(self, kernel: Kernel) -> None:
        """Have the kernel's reference computed in the background, unless it is known or under way."""
        if kernel.id in self._cases or kernel.id in self._prepared_cases:
            return

        def work(timer: PhaseTimer) -> Case:
            with timer.timing(SessionPhase.REFERENCE):
                return make_case(kernel, self._context.seed)

        self._prepared_cases[kernel.id] = self._context.prefetcher.submit(work)

    def measure(
        self,
        kernel: Kernel,
        attempt: Attempt,
        best_s: float | None = None,
        upcoming: AnyProgram | None = None,
    ) -> Outcome:
        """Measure ``attempt`` and commit it as a trial.

        A program in quarantine is not run and no trial is committed: the outcome is the fault that it ended in last.

        Args:
            kernel: what the attempt is a schedule of.
            attempt: the schedule.
            best_s: the kernel's best latency so far. A candidate that is clearly slower gets fewer samples.
            upcoming: the program that is likely to be measured next; a worker that can compiles it meanwhile.

        Raises:
            Interrupted: the user asked to stop; the trial is committed as abandoned.
            DeviceError: the device does not work any more; the trial is committed as abandoned.
            NonFiniteReferenceError: the kernel has no reference; nothing was committed.
        """
        if attempt.program is not None and (refusal := self._quarantine.refusal(kernel.id, attempt.program.digest)):
            return Outcome(refusal.state, None, refusal.message)
        case = self._case(kernel)
        with self._context.timer.timing(SessionPhase.COMMIT):
            trial = self._context.store.begin_trial(self._start(kernel, attempt))
        try:
            measurement = self._measure(kernel, attempt, case, best_s, upcoming)
        except BaseException:
            self._end(trial, Measurement(TrialState.ABANDONED, error="the session stopped while it was running"), case)
            raise
        self._end(trial, measurement, case)
        if attempt.program is not None:
            self._quarantine.record(kernel.id, attempt.program.digest, measurement.state)
        latency_s = statistics.median(measurement.samples_s) if measurement.state is TrialState.OK else None
        return Outcome(measurement.state, latency_s, measurement.error, measurement.samples_s)

    def _case(self, kernel: Kernel) -> Case:
        """Return the kernel's reference; computed now unless it is known or was prepared."""
        if kernel.id not in self._cases:
            self._context.listener.on(PhaseStarted(kernel.id, SessionPhase.REFERENCE))
            self.prepare(kernel)
            self._cases[kernel.id] = self._prepared_cases.pop(kernel.id).result()
        return self._cases[kernel.id]

    def _start(self, kernel: Kernel, attempt: Attempt) -> TrialStart:
        program = attempt.program
        return TrialStart(
            session_id=self.session_id,
            workload_id=kernel.id,
            kind=attempt.kind,
            trace=attempt.trace,
            program_digest=program.digest if program else "",
            needs=asdict(program.needs) if program else {},
            launches=len(program.dispatches) if program else 0,
            seed=self._context.seed,
            repeat=attempt.repeat,
            features=attempt.features,
            features_version=VERSION,
        )

    def _measure(
        self, kernel: Kernel, attempt: Attempt, case: Case, best_s: float | None, upcoming: AnyProgram | None
    ) -> Measurement:
        """Have the worker measure the attempt's program, and count the time by phase."""
        if attempt.program is None:
            return Measurement(TrialState.BUILD_ERROR, error=attempt.error)
        job = MeasureJob(
            program=attempt.program,
            case=case.path,
            rtol=case.rtol,
            atol=case.atol,
            floor_s=floor_seconds(kernel, self.peaks),
            sampling=_sampling(best_s, self._context.cache),
            upcoming=upcoming,
        )
        start = time.perf_counter()
        with self._context.interrupts.cutting_short():
            measurement = self._worker.measure(job)
        elapsed_s = time.perf_counter() - start
        timer = self._context.timer
        timer.add(SessionPhase.RUN, measurement.run_s)
        timer.add(SessionPhase.VERIFY, measurement.verify_s)
        # Compilation done while the previous trial was measured does not fit into this trial's time: it overlapped.
        rest_s = max(0.0, elapsed_s - measurement.run_s - measurement.verify_s)
        waited_s = min(measurement.compile_s, rest_s)
        timer.add_overlapping(SessionPhase.COMPILE, measurement.compile_s, waited_s)
        timer.add(SessionPhase.WORKER, rest_s - waited_s)
        return measurement

    def _end(self, trial: int, measurement: Measurement, case: Case) -> None:
        with self._context.timer.timing(SessionPhase.COMMIT):
            self._context.store.end_trial(
                trial,
                TrialEnd(
                    state=measurement.state,
                    samples_s=measurement.samples_s,
                    warmup_s=measurement.warmup_s,
                    timer=measurement.timer,
                    compile_s=measurement.compile_s,
                    run_s=measurement.run_s,
                    verify_s=measurement.verify_s,
                    max_error=measurement.max_error,
                    rtol=case.rtol,
                    atol=case.atol,
                    error=measurement.error,
                ),
            )
        self.states[measurement.state] += 1


class TrialRunner(TrialRecorder):
    """Runs the trials of a tuning session, in the session's thread.

    Each trial counts in the session's kernel states and is told to the listener. The device's speed is watched between
    trials, and trials are repeated where it changed. Arguments as for `TrialRecorder`.
    """

    def __init__(self, context: SessionContext, session_id: int, worker: MeasuringWorker, peaks: Peaks) -> None:
        super().__init__(context, session_id, worker, peaks)
        self._session = context
        self._states = context.kernel_states
        self._drift = DriftWatch(self.measure_again, self._stored_baseline)

    def notes(self) -> list[str]:
        """Return one line per change of the device's speed."""
        return self._drift.notes()

    def run(self, progress: KernelProgress, attempt: Attempt, upcoming: AnyProgram | None = None) -> float | None:
        """Run one trial of a kernel and return its latency in seconds, None if it failed.

        A kernel without a reference is skipped from then on.

        Args:
            progress: of the kernel.
            attempt: the schedule.
            upcoming: the program that is likely to be measured next; compiled meanwhile if the session overlaps work.

        Raises:
            Interrupted, DeviceError: as `TrialRecorder.measure`.
        """
        listener = self._session.listener
        kernel = self._states.kernels[progress.id]
        if (drift := self._drift.check()) is not None:
            listener.on(Drifted(drift.kernel.id, drift.ratio, str(drift)))
        listener.on(TrialStarted(kernel.id, attempt.kind))
        try:
            precompiled = upcoming if self._session.prefetcher.overlapping else None
            outcome = self.measure(kernel, attempt, progress.best_s, precompiled)
        except NonFiniteReferenceError as error:
            self._states.skip(progress, error.message)
            return None
        self._states.record(progress, attempt.kind, outcome.latency_s)
        self._drift.record(kernel, attempt, outcome)
        self._report(progress, attempt.kind, outcome)
        return outcome.latency_s

    def measure_again(self, kernel: Kernel, attempt: Attempt) -> Outcome:
        """Measure a known schedule once more: a check, or a repeat that may change the kernel's best."""
        self._session.listener.on(TrialStarted(kernel.id, TrialKind.CHECK))
        try:
            outcome = self.measure(kernel, attempt)
        except NonFiniteReferenceError as error:
            return Outcome(TrialState.BUILD_ERROR, None, error.message)
        self._session.leases.count_own(kernel.id, outcome.state)
        progress = self._states.scheduler.kernels[kernel.id]
        if attempt.repeat:
            self._states.reload_best(progress)
        self._report(progress, TrialKind.CHECK, outcome)
        return outcome

    def _stored_baseline(self) -> tuple[Kernel, Attempt] | None:
        """Return the earlier session's baseline that suits the drift watch best, None if none does."""
        known = self._states.baselines
        kernel_id = max(known, key=lambda one: suitability(known[one]), default=None)
        if kernel_id is None or not suitability(known[kernel_id]):
            return None
        kernel, request = self._states.kernels[kernel_id], self._session.request
        record = self._session.store.baselines(request.device.key, [kernel_id], request.device.runtime)[kernel_id]

        def lower(timer: PhaseTimer) -> Attempt:
            with timer.timing(SessionPhase.BUILD):
                return stored_attempt(kernel, record.trace, request.tier, TrialKind.CHECK)

        return kernel, self._session.prefetcher.run(lower)

    def _report(self, progress: KernelProgress, kind: TrialKind, outcome: Outcome) -> None:
        self._session.listener.on(
            TrialEnded(
                kernel_id=progress.id,
                kind=kind,
                state=outcome.state,
                latency_s=outcome.latency_s,
                baseline_s=self._states.baselines.get(progress.id),
                best_s=progress.best_s,
                trials_left=self._states.scheduler.left,
                error=outcome.error,
            )
        )


@dataclass(frozen=True)
class Refusal:
    """Why a program in quarantine is not run. ``state`` is how it ended the last time."""

    state: TrialState
    message: str


class Quarantine:
    """Programs that crashed the worker too often to be run again.

    Crashes count over all sessions on the same device, runtime and driver: under another driver a program is tried
    again.
    """

    def __init__(self, store: Store, session_id: int) -> None:
        self._store = store
        self._session_id = session_id
        self._crashes: dict[str, dict[str, tuple[int, TrialState]]] = {}

    def refusal(self, workload_id: str, program_digest: str) -> Refusal | None:
        """Return why a program of a workload must not be run, None if it may."""
        count, state = self._of(workload_id).get(program_digest, (0, TrialState.RUN_ERROR))
        if count < QUARANTINE_AFTER:
            return None
        return Refusal(
            state,
            f"in quarantine: it took the worker down {count} times under this driver, {state.value} the last time",
        )

    def record(self, workload_id: str, program_digest: str, state: TrialState) -> None:
        """Count a trial of this session that ended."""
        if state.crash:
            known = self._of(workload_id)
            known[program_digest] = (known.get(program_digest, (0, state))[0] + 1, state)

    def _of(self, workload_id: str) -> dict[str, tuple[int, TrialState]]:
        """Return crash count and last state by program digest, read from the database at the first call."""
        if workload_id not in self._crashes:
            self._crashes[workload_id] = crashes(self._store, self._session_id, workload_id)
        return self._crashes[workload_id]


def _sampling(best_s: float | None, cache: CacheState) -> Sampling:
    """Return how a candidate that competes with a latency of ``best_s`` seconds is sampled."""
    if best_s is None:
        return Sampling(cache=cache)
    rival_s = _RIVAL_RATIO * best_s
    if best_s < _LONG_S:
        return Sampling(rival_s=rival_s, give_up_s=max(_MIN_GIVE_UP_S, _GIVE_UP_RATIO * best_s), cache=cache)
    return Sampling(rival_s=rival_s, give_up_s=_GIVE_UP_RATIO_LONG * best_s, min_samples=3, cache=cache)
