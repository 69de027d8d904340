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
from ...support.signals import Interrupts
from ..ir import Kernel
from ..reference.reference import Case, NonFiniteReferenceError, make_case
from ..reference.roofline import floor_seconds
from ..search.task_scheduler import KernelProgress
from .context import SessionContext
from .drift import DriftWatch, suitability
from .events import Drifted, PhaseStarted, SessionPhase, TrialEnded, TrialStarted, TuneListener
from .phase_timer import PhaseTimer
from .prefetch import Pending, Prefetcher
from .trial import Attempt, Outcome, stored_attempt

_LONG_S = 0.02
"""Runs of this length vary little from one to the next, and repeating them is what a session's time goes to."""

_HOPELESS = 5.0
_HOPELESS_LONG = 1.5
"""A candidate whose first run takes so many times the best latency is not run again: one sample ranks it."""

_RIVAL = 1.5
"""A candidate that is surely so many times slower than the best is not measured any more precisely."""

_MIN_GIVE_UP_S = 0.001
"""Shorter runs cost nothing, and a first run of a few microseconds says little."""


class Trials:
    """Runs a session's trials on its device, and books every one of them.

    Args:
        store: where trials are committed.
        session_id: the session they belong to.
        worker: measures; already started.
        peaks: of the device, for the shortest believable time.
        seed: of the inputs.
        stopwatch: counts where time goes.
        interrupts: cuts a measurement short when the user asks to stop.
        listener: told when a reference is being computed.
        cache: what timed runs find in the caches.
        ahead: computes references; by default when they are needed.
    """

    def __init__(
        self,
        store: Store,
        session_id: int,
        worker: MeasuringWorker,
        peaks: Peaks,
        seed: int,
        stopwatch: PhaseTimer,
        interrupts: Interrupts,
        listener: TuneListener,
        cache: CacheState = CacheState.WARM,
        ahead: Prefetcher | None = None,
    ) -> None:
        self._store = store
        self._session_id = session_id
        self._worker = worker
        self._peaks = peaks
        self._seed = seed
        self._stopwatch = stopwatch
        self._interrupts = interrupts
        self._listener = listener
        self._cache = cache
        self._ahead = ahead or Prefetcher(stopwatch, overlapping=False)
        self._cases: dict[str, Case] = {}
        self._prepared: dict[str, Pending[Case]] = {}
        self._quarantine = Quarantine(store, session_id)
        self.states: Counter[TrialState] = Counter()

    def prepare(self, kernel: Kernel) -> None:
        """Has the kernel's reference computed ahead, unless it is there."""
        if kernel.id in self._cases or kernel.id in self._prepared:
            return

        def work(stopwatch: PhaseTimer) -> Case:
            with stopwatch.timing(SessionPhase.REFERENCE):
                return make_case(kernel, self._seed)

        self._prepared[kernel.id] = self._ahead.prepare(work)

    def run(
        self, kernel: Kernel, attempt: Attempt, best_s: float | None, upcoming: AnyProgram | None = None
    ) -> Outcome:
        """Tries ``attempt`` at ``kernel``, whose best latency so far is ``best_s``.

        ``upcoming``, which is likely to be tried next, is compiled meanwhile where the worker can do that. A program in
        quarantine is not run: the outcome is the fault that it would end in, and no trial is made of it.

        Raises:
            Interrupted: the user asked to stop; the trial is committed as abandoned.
            DeviceError: the device does not work any more; so is the trial.
            NonFiniteReferenceError: the kernel has no reference; nothing was committed.
        """
        if attempt.program is not None and (refusal := self._quarantine.refusal(kernel.id, attempt.program.digest)):
            return Outcome(refusal.state, None, refusal.words)
        case = self._case(kernel)
        with self._stopwatch.timing(SessionPhase.COMMIT):
            trial = self._store.begin_trial(self._start(kernel, attempt))
        try:
            measurement = self._measure(kernel, attempt, case, best_s, upcoming)
        except BaseException:
            self._end(trial, Measurement(TrialState.ABANDONED, error="the session stopped while it was running"), case)
            raise
        self._end(trial, measurement, case)
        if attempt.program is not None:
            self._quarantine.saw(kernel.id, attempt.program.digest, measurement.state)
        latency = statistics.median(measurement.samples_s) if measurement.state is TrialState.OK else None
        return Outcome(measurement.state, latency, measurement.error, measurement.samples_s)

    def _case(self, kernel: Kernel) -> Case:
        """The kernel's reference, computed when it is first asked for unless that was done ahead."""
        if kernel.id not in self._cases:
            self._listener.on(PhaseStarted(kernel.id, SessionPhase.REFERENCE))
            self.prepare(kernel)
            self._cases[kernel.id] = self._prepared.pop(kernel.id).result()
        return self._cases[kernel.id]

    def _start(self, kernel: Kernel, attempt: Attempt) -> TrialStart:
        program = attempt.program
        return TrialStart(
            session_id=self._session_id,
            workload_id=kernel.id,
            kind=attempt.kind,
            trace=attempt.trace,
            program_digest=program.digest if program else "",
            needs=asdict(program.needs) if program else {},
            launches=len(program.dispatches) if program else 0,
            seed=self._seed,
            repeat=attempt.repeat,
        )

    def _measure(
        self, kernel: Kernel, attempt: Attempt, case: Case, best_s: float | None, upcoming: AnyProgram | None
    ) -> Measurement:
        if attempt.program is None:
            return Measurement(TrialState.BUILD_ERROR, error=attempt.error)
        job = MeasureJob(
            program=attempt.program,
            case=case.path,
            rtol=case.rtol,
            atol=case.atol,
            floor_s=floor_seconds(kernel, self._peaks),
            sampling=_sampling(best_s, self._cache),
            upcoming=upcoming,
        )
        start = time.perf_counter()
        with self._interrupts.cutting_short():
            measurement = self._worker.measure(job)
        elapsed = time.perf_counter() - start
        self._stopwatch.add(SessionPhase.RUN, measurement.run_s)
        self._stopwatch.add(SessionPhase.VERIFY, measurement.verify_s)
        # What was compiled while the trial before was measured does not fit into this one's time.
        rest_s = max(0.0, elapsed - measurement.run_s - measurement.verify_s)
        waited_s = min(measurement.compile_s, rest_s)
        self._stopwatch.add_partly(SessionPhase.COMPILE, measurement.compile_s, waited_s)
        self._stopwatch.add(SessionPhase.WORKER, rest_s - waited_s)
        return measurement

    def _end(self, trial: int, measurement: Measurement, case: Case) -> None:
        with self._stopwatch.timing(SessionPhase.COMMIT):
            self._store.end_trial(
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


class SessionTrials:
    """Makes ``trials`` for a session, in the session's thread, and keeps an eye on the device's speed."""

    def __init__(self, context: SessionContext, trials: Trials) -> None:
        self._context = context
        self._standing = context.standing
        self._trials = trials
        self._drift = DriftWatch(self._again, self._known_baseline)

    @property
    def states(self) -> dict[TrialState, int]:
        """How many trials ended in each state."""
        return dict(self._trials.states)

    def notes(self) -> list[str]:
        """How the device's speed changed, in words."""
        return self._drift.notes()

    def prepare(self, kernel: Kernel) -> None:
        """Says that the kernel's reference will be needed soon."""
        self._trials.prepare(kernel)

    def run(self, progress: KernelProgress, attempt: Attempt, upcoming: AnyProgram | None = None) -> float | None:
        """One trial of a kernel; its latency in seconds, None where it failed.

        Where work overlaps, ``upcoming`` is compiled meanwhile: the program that is likely to be tried next. A kernel
        without a reference is left out from now on. Raises as `Trials.run` does otherwise.
        """
        kernel = self._standing.kernels[progress.id]
        if (moved := self._drift.look()) is not None:
            self._context.listener.on(Drifted(moved.kernel.id, moved.ratio, str(moved)))
        self._context.listener.on(TrialStarted(kernel.id, attempt.kind))
        try:
            beside = upcoming if self._context.ahead.overlapping else None
            outcome = self._trials.run(kernel, attempt, progress.best_s, beside)
        except NonFiniteReferenceError as error:
            self._standing.leave_out(progress, error.message)
            return None
        self._standing.record(progress, attempt.kind, outcome.latency_s)
        self._drift.saw(kernel, attempt, outcome)
        self._tell(progress, attempt.kind, outcome)
        return outcome.latency_s

    def _again(self, kernel: Kernel, attempt: Attempt) -> Outcome:
        """Measures a schedule once more: a check, or a repeat, after which the database says what is best."""
        self._context.listener.on(TrialStarted(kernel.id, TrialKind.CHECK))
        try:
            outcome = self._trials.run(kernel, attempt, None)
        except NonFiniteReferenceError as error:
            return Outcome(TrialState.BUILD_ERROR, None, error.message)
        self._context.sharing.booked(kernel.id)
        progress = self._standing.scheduler.kernels[kernel.id]
        if attempt.repeat:
            self._standing.read_best(progress)
        self._tell(progress, TrialKind.CHECK, outcome)
        return outcome

    def _known_baseline(self) -> tuple[Kernel, Attempt] | None:
        """A baseline of an earlier session that is good to be watched."""
        known = self._standing.baselines
        identity = max(known, key=lambda one: suitability(known[one]), default=None)
        if identity is None or not suitability(known[identity]):
            return None
        kernel, request = self._standing.kernels[identity], self._context.request
        record = self._context.store.baselines(request.device.key, [identity], request.device.runtime)[identity]

        def lower(stopwatch: PhaseTimer) -> Attempt:
            with stopwatch.timing(SessionPhase.BUILD):
                return stored_attempt(kernel, record.trace, request.tier, TrialKind.CHECK)

        return kernel, self._context.ahead.do(lower)

    def _tell(self, progress: KernelProgress, kind: TrialKind, outcome: Outcome) -> None:
        self._context.listener.on(
            TrialEnded(
                kernel_id=progress.id,
                kind=kind,
                state=outcome.state,
                latency_s=outcome.latency_s,
                baseline_s=self._standing.baselines.get(progress.id),
                best_s=progress.best_s,
                trials_left=self._standing.scheduler.left,
                error=outcome.error,
            )
        )


@dataclass(frozen=True)
class Refusal:
    """Why a program is not run: ``state`` is how it ended last."""

    state: TrialState
    words: str


class Quarantine:
    """What has crashed on a session's device, through its runtime, under its driver: a new driver is a new chance."""

    def __init__(self, store: Store, session_id: int) -> None:
        self._store = store
        self._session_id = session_id
        self._crashes: dict[str, dict[str, tuple[int, TrialState]]] = {}

    def refusal(self, workload_id: str, program_digest: str) -> Refusal | None:
        """Why a program of a workload is not to be run; None where it may be."""
        count, state = self._of(workload_id).get(program_digest, (0, TrialState.RUN_ERROR))
        if count < QUARANTINE_AFTER:
            return None
        return Refusal(
            state,
            f"in quarantine: it took the worker down {count} times under this driver, {state.value} the last time",
        )

    def saw(self, workload_id: str, program_digest: str, state: TrialState) -> None:
        """Counts how a trial ended."""
        if state.crash:
            known = self._of(workload_id)
            known[program_digest] = (known.get(program_digest, (0, state))[0] + 1, state)

    def _of(self, workload_id: str) -> dict[str, tuple[int, TrialState]]:
        if workload_id not in self._crashes:
            self._crashes[workload_id] = crashes(self._store, self._session_id, workload_id)
        return self._crashes[workload_id]


def _sampling(best_s: float | None, cache: CacheState) -> Sampling:
    """How often to run a candidate that competes with a latency of ``best_s`` seconds."""
    if best_s is None:
        return Sampling(cache=cache)
    rival_s = _RIVAL * best_s
    if best_s < _LONG_S:
        return Sampling(rival_s=rival_s, give_up_s=max(_MIN_GIVE_UP_S, _HOPELESS * best_s), cache=cache)
    return Sampling(rival_s=rival_s, give_up_s=_HOPELESS_LONG * best_s, min_samples=3, cache=cache)
