"""One trial from begin to end: committed as running, measured and verified by the worker, committed as ended."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import asdict, dataclass

from ...database.schema.records import TrialEnd, TrialKind, TrialStart
from ...database.store import Store
from ...devices.measure.job import MeasureJob, Measurement, Peaks, Sampling
from ...devices.native_program import AnyProgram
from ...devices.worker.factory import MeasuringWorker
from ...support.enums import CacheState, TrialState
from ...support.signals import Interrupts
from ..ir import Kernel
from ..reference.reference import Case, make_case
from ..reference.roofline import floor_seconds
from .events import Phase, TuneListener, Working
from .phase_timer import Stopwatch
from .prefetch import Ahead, Pending
from .quarantine import Quarantine

_LONG_S = 0.02
"""Runs of this length vary little from one to the next, and repeating them is what a session's time goes to."""

_HOPELESS = 5.0
_HOPELESS_LONG = 1.5
"""A candidate whose first run takes so many times the best latency is not run again: one sample ranks it."""

_RIVAL = 1.5
"""A candidate that is surely so many times slower than the best is not measured any more precisely."""

_MIN_GIVE_UP_S = 0.001
"""Shorter runs cost nothing, and a first run of a few microseconds says little."""


@dataclass(frozen=True)
class Attempt:
    """A schedule as a trial takes it: ``program`` is None where none could be emitted, for the reason ``error``.

    A ``repeat`` takes the place of what was measured of the schedule before.
    """

    kind: TrialKind
    trace: str
    program: AnyProgram | None
    error: str
    repeat: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; ``latency_s`` is the median of its samples, None unless it is `ok`."""

    state: TrialState
    latency_s: float | None
    error: str
    samples_s: tuple[float, ...] = ()


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
        stopwatch: Stopwatch,
        interrupts: Interrupts,
        listener: TuneListener,
        cache: CacheState = CacheState.WARM,
        ahead: Ahead | None = None,
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
        self._ahead = ahead or Ahead(stopwatch, overlapping=False)
        self._cases: dict[str, Case] = {}
        self._prepared: dict[str, Pending[Case]] = {}
        self._quarantine = Quarantine(store, session_id)
        self.states: Counter[TrialState] = Counter()

    def prepare(self, kernel: Kernel) -> None:
        """Has the kernel's reference computed ahead, unless it is there."""
        if kernel.id in self._cases or kernel.id in self._prepared:
            return

        def work(stopwatch: Stopwatch) -> Case:
            with stopwatch.timing(Phase.REFERENCE):
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
            CaseError: the kernel has no reference; nothing was committed.
        """
        if attempt.program is not None and (refusal := self._quarantine.refusal(kernel.id, attempt.program.digest)):
            return Outcome(refusal.state, None, refusal.words)
        case = self._case(kernel)
        with self._stopwatch.timing(Phase.COMMIT):
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
            self._listener.on(Working(kernel.id, Phase.REFERENCE))
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
        self._stopwatch.add(Phase.RUN, measurement.run_s)
        self._stopwatch.add(Phase.VERIFY, measurement.verify_s)
        # What was compiled while the trial before was measured does not fit into this one's time.
        rest_s = max(0.0, elapsed - measurement.run_s - measurement.verify_s)
        waited_s = min(measurement.compile_s, rest_s)
        self._stopwatch.add_partly(Phase.COMPILE, measurement.compile_s, waited_s)
        self._stopwatch.add(Phase.WORKER, rest_s - waited_s)
        return measurement

    def _end(self, trial: int, measurement: Measurement, case: Case) -> None:
        with self._stopwatch.timing(Phase.COMMIT):
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


def _sampling(best_s: float | None, cache: CacheState) -> Sampling:
    """How often to run a candidate that competes with a latency of ``best_s`` seconds."""
    if best_s is None:
        return Sampling(cache=cache)
    rival_s = _RIVAL * best_s
    if best_s < _LONG_S:
        return Sampling(rival_s=rival_s, give_up_s=max(_MIN_GIVE_UP_S, _HOPELESS * best_s), cache=cache)
    return Sampling(rival_s=rival_s, give_up_s=_HOPELESS_LONG * best_s, min_samples=3, cache=cache)
