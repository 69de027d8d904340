"""A tuning session: baselines first, then search where the image's time is, every trial committed as it ends."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ..database.records import SessionOutcome, TrialKind, TrialSummary
from ..database.store import Store
from ..devices.device import Device
from ..devices.job import Peaks, Timeouts
from ..devices.limits import Tier
from ..devices.opening import MeasuringWorker, OpenWorker, open_worker
from ..states import QUARANTINE_AFTER, CacheState, TrialState
from .budget import Budget, Progress
from .drift import DriftWatch, suitability
from .emit import EmitError
from .events import (
    Drifted,
    KernelExhausted,
    KernelPlan,
    KernelSkipped,
    Phase,
    SessionEnded,
    SessionStarted,
    Stopping,
    TrialEnded,
    TrialStarted,
    TuneListener,
    TuneSummary,
    Working,
)
from .interrupts import Interrupted, Interrupts
from .native import tier_for
from .program import Capture, Kernel
from .programs import emit
from .reference import CaseError
from .registration import check_cache_state, host_name, register_model, session_info
from .roofline import floor_seconds
from .schedules import baseline_schedules, trace_to_json
from .search import CostModel, KernelSearch
from .selection import select_kernels
from .sharing import Sharing
from .stored import stored_attempt
from .transfer import untried_relatives
from .trials import Attempt, Outcome, Stopwatch, Trials

_POLL_S = 0.5
"""How often to look whether another tuner has given a kernel back."""


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, where, and for how long.

    ``stages`` and ``kernels`` (names, ids, globs) narrow the capture; None means all. ``steps`` weighs the stages in
    an image's time. ``trials`` are search trials per kernel on average, earlier sessions' included, ``minutes`` limit
    this run; None means no limit. ``seed`` is of the search and of the inputs, ``reason`` is kept with the session.
    ``cache`` is what timed runs find in the caches; a database holds times of one kind for a device.
    ``transfer`` tries the best schedules of related devices before it searches; they are no part of ``trials``.
    """

    capture: Capture
    device: Device
    tier: Tier
    steps: int = 20
    stages: Sequence[str] | None = None
    kernels: Sequence[str] | None = None
    trials: int | None = 32
    minutes: float | None = None
    seed: int = 0
    reason: str = ""
    cache: CacheState = CacheState.WARM
    transfer: bool = True
    timeouts: Timeouts = field(default_factory=Timeouts)

    def budget_json(self) -> dict[str, Any]:
        """What was asked for, as the database keeps it."""
        return {
            "trials": self.trials,
            "minutes": self.minutes,
            "steps": self.steps,
            "stages": list(self.stages) if self.stages else None,
            "kernels": list(self.kernels) if self.kernels else None,
        }


def tune(request: TuneRequest, store: Store, listener: TuneListener, opener: OpenWorker = open_worker) -> TuneSummary:
    """Tunes what ``request`` asks for, as far as ``store`` does not know it yet; ``opener`` makes what measures.

    A kernel's baseline is its first trial and competes with all others, so a tuned kernel is never slower. Killing the
    process at any moment loses at most the running trial; the same request goes on from there. Tuners of one device
    that share a database share its kernels out. The first SIGINT or SIGTERM gives up the running trial and ends the
    session as interrupted, the second one ends the process.

    Raises:
        UsageError: the request names a stage or a kernel that the model does not have; the device's times in the
            database are of caches in another state.
        DeviceError: the device does not start, or stopped working; what ended before is committed.
        DatabaseError: the database fails.
    """
    request = replace(request, tier=tier_for(request.device, request.tier))
    return _Session(request, store, listener, opener).run()


class _Session:
    def __init__(self, request: TuneRequest, store: Store, listener: TuneListener, opener: OpenWorker) -> None:
        self._request = request
        self._opener = opener
        self._store = store
        self._listener = listener
        self._start = time.monotonic()
        self._stopwatch = Stopwatch()
        self._runtime = request.device.runtime
        self._kernels = {k.id: k for k in select_kernels(request.capture, request.stages, request.kernels)}
        self._calls = self._calls_per_image()
        self._baselines: dict[str, float] = {}
        self._skipped: dict[str, str] = {}
        self._searches: dict[str, KernelSearch] = {}
        self._model = CostModel()
        self._abandoned = 0
        self._budget = Budget([], 0)
        self._transfers: dict[str, list[str]] = {}

    def run(self) -> TuneSummary:
        check_cache_state(self._store, self._request.device, self._request.cache)
        self._abandoned = self._store.abandon_dead(host_name())
        self._sharing = Sharing(self._store, self._request.device.key, self._runtime, self._kernels)
        self._budget = Budget([self._recall(kernel) for kernel in self._kernels.values()], self._request.trials)
        with Interrupts(
            on_request=lambda: self._listener.on(Stopping()),
            on_leave=lambda: self._listener.on(Stopping(at_once=True)),
        ) as interrupts:
            if self._request.transfer:
                kernels = list(self._kernels.values())
                self._transfers = untried_relatives(self._store, self._request.device, self._request.tier, kernels)
            if not self._missing_baselines() and not self._transfers and self._budget.left == 0:
                return self._end(None, None, SessionOutcome.COMPLETED)
            register_model(self._store, self._request.capture, self._request.steps)
            worker = self._opener(self._request.device, self._request.timeouts)
            try:
                with interrupts.cutting_short(), self._stopwatch.timing(Phase.WORKER):
                    peaks = worker.calibrate()
                return self._run_session(worker, peaks, interrupts)
            except Interrupted:
                return self._end(None, None, SessionOutcome.INTERRUPTED)
            finally:
                worker.close()

    def _run_session(self, worker: MeasuringWorker, peaks: Peaks, interrupts: Interrupts) -> TuneSummary:
        request = self._request
        for progress in self._budget.kernels.values():
            progress.estimate_s = floor_seconds(self._kernels[progress.id], peaks)
        info = session_info(
            request.device, request.capture, request.tier, request.budget_json(), request.seed, request.reason
        )
        session = self._store.begin_session(replace(info, cache=request.cache))
        self._sharing.join(session)
        trials = Trials(
            self._store,
            session,
            worker,
            peaks,
            request.seed,
            self._stopwatch,
            interrupts,
            self._listener,
            request.cache,
        )
        self._drift = DriftWatch(lambda kernel, attempt: self._again(trials, kernel, attempt), self._known_baseline)
        outcome, note = SessionOutcome.FAILED, ""
        try:
            self._announce(session)
            try:
                self._measure_baselines(trials, interrupts)
                self._try_relatives(trials, interrupts)
                self._search(trials, interrupts)
                outcome = SessionOutcome.INTERRUPTED if interrupts.requested else SessionOutcome.COMPLETED
            except Interrupted:
                outcome = SessionOutcome.INTERRUPTED
            note = "\n".join(self._drift.notes())
        except BaseException as error:
            note = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._store.end_session(session, outcome, note)
        return self._end(session, trials, outcome)

    # What earlier sessions left

    def _calls_per_image(self) -> dict[str, int]:
        """Launches per image by kernel, over the stages asked for."""
        calls = dict.fromkeys(self._kernels, 0)
        for (stage, kernel), count in self._request.capture.calls_per_image(self._request.steps).items():
            if kernel in calls and (not self._request.stages or stage in self._request.stages):
                calls[kernel] += count
        return calls

    def _tried(self, kernel: Kernel) -> list[TrialSummary]:
        return self._store.tried(self._request.device.key, kernel.id, self._runtime)

    def _recall(self, kernel: Kernel) -> Progress:
        """The kernel's progress in earlier sessions on this device."""
        progress = Progress(kernel.id, self._calls[kernel.id])
        for trial in self._tried(kernel):
            if trial.kind is TrialKind.SEARCH:
                progress.record(trial.latency_s)
            elif trial.kind is TrialKind.TRANSFER:
                self._admit(progress, trial.latency_s)
            elif trial.latency_s is not None:
                known = self._baselines.get(kernel.id, trial.latency_s)
                self._baselines[kernel.id] = min(known, trial.latency_s)
        self._admit(progress, self._baselines.get(kernel.id))
        return progress

    def _admit(self, progress: Progress, latency_s: float | None) -> None:
        """Lets compete what is no part of the budget: the baseline, and what another device found."""
        if latency_s is not None and (progress.best_s is None or latency_s < progress.best_s):
            progress.best_s = latency_s

    def _missing_baselines(self) -> list[Progress]:
        """Kernels without a baseline that may still get one, the heaviest first."""
        missing = [
            progress
            for progress in self._budget.kernels.values()
            if progress.id not in self._baselines and not progress.exhausted and self._has_untried_baseline(progress)
        ]
        return sorted(missing, key=lambda progress: -progress.time_s)

    def _has_untried_baseline(self, progress: Progress) -> bool:
        kernel = self._kernels[progress.id]
        tried = self._tried(kernel)
        if not any(trial.kind is TrialKind.BASELINE for trial in tried):
            return True
        attempts = []
        for attempt in self._baseline_attempts(kernel):
            if not _given_up(attempt, tried):
                return True
            attempts.append(attempt)
        self._leave_out_unless_emitted(progress, attempts)
        return False

    def _leave_out_unless_emitted(self, progress: Progress, attempts: Sequence[Attempt]) -> None:
        """Leaves a kernel alone whose untuned schedules all failed to become WGSL within the tier: so would others."""
        if attempts and all(attempt.program is None for attempt in attempts):
            self._leave_out(progress, attempts[-1].error)

    def _leave_out(self, progress: Progress, reason: str) -> None:
        name = self._kernels[progress.id].name
        self._skipped[name] = reason
        progress.exhausted = True
        self._listener.on(KernelSkipped(progress.id, name, reason))

    # Trials

    def _measure_baselines(self, trials: Trials, interrupts: Interrupts) -> None:
        missing = {progress.id: progress for progress in self._missing_baselines()}
        while missing and not interrupts.requested and not self._out_of_time():
            with self._sharing.holding(list(missing)) as mine:
                self._learn(missing if mine is None else [mine])
                if mine is None:
                    self._wait(next(iter(missing)))
                elif mine not in self._baselines and not self._measure_baseline(trials, interrupts, missing[mine]):
                    return
            missing = {kernel: p for kernel, p in missing.items() if kernel != mine and kernel not in self._baselines}

    def _measure_baseline(self, trials: Trials, interrupts: Interrupts, progress: Progress) -> bool:
        """Tries the kernel's untuned schedules until one works; False where there is no time for that any more."""
        tried = self._tried(self._kernels[progress.id])
        attempts = []
        for attempt in self._baseline_attempts(self._kernels[progress.id]):
            attempts.append(attempt)
            if _given_up(attempt, tried):
                continue
            if interrupts.requested or self._out_of_time():
                return False
            self._try(trials, progress, attempt)
            if progress.id in self._baselines or progress.exhausted:
                return True
        self._leave_out_unless_emitted(progress, attempts)
        return True

    def _baseline_attempts(self, kernel: Kernel) -> Iterator[Attempt]:
        """Untuned schedules in the order in which they should be tried, lowered one by one."""
        for schedule in baseline_schedules(kernel, self._request.tier):
            program, error = None, ""
            with self._stopwatch.timing(Phase.BUILD):
                try:
                    program = emit(schedule.mod, self._request.tier)
                except EmitError as failure:
                    error = failure.message
            yield Attempt(TrialKind.BASELINE, trace_to_json(schedule), program, error)

    def _try_relatives(self, trials: Trials, interrupts: Interrupts) -> None:
        """Tries what related devices found best, so that search starts from there; the heaviest kernels first."""
        for progress in sorted(self._budget.kernels.values(), key=lambda progress: -progress.time_s):
            if progress.id not in self._transfers or progress.exhausted:
                continue
            # Whoever holds the kernel tries them.
            with self._sharing.holding([progress.id]) as mine:
                if mine is None:
                    continue
                kernel = self._kernels[progress.id]
                known = {trial.program_digest for trial in self._tried(kernel)}
                for trace in self._transfers[progress.id]:
                    if interrupts.requested or self._out_of_time():
                        return
                    if progress.exhausted or not self._sharing.keep(progress.id):
                        break
                    with self._stopwatch.timing(Phase.BUILD):
                        attempt = stored_attempt(kernel, trace, self._request.tier, TrialKind.TRANSFER)
                    if attempt.program is None or attempt.program.digest not in known:
                        self._try(trials, progress, attempt)

    def _search(self, trials: Trials, interrupts: Interrupts) -> None:
        while due := {progress.id: (progress, count) for progress, count in self._budget.due()}:
            if interrupts.requested or self._out_of_time():
                return
            with self._sharing.holding(list(due)) as mine:
                # What others did meanwhile may have changed what is due.
                if self._learn(self._kernels):
                    continue
                if mine is None:
                    self._wait(next(iter(due)))
                else:
                    self._search_round(trials, interrupts, *due[mine])

    def _search_round(self, trials: Trials, interrupts: Interrupts, progress: Progress, count: int) -> None:
        search = self._search_of(progress)
        self._listener.on(Working(progress.id, Phase.SEARCH))
        emitting = search.emit_s
        with self._stopwatch.timing(Phase.SEARCH):
            candidates = search.propose(count)
        self._stopwatch.add(Phase.BUILD, search.emit_s - emitting)
        self._stopwatch.add(Phase.SEARCH, emitting - search.emit_s)
        results = []
        for candidate in candidates:
            if interrupts.requested or self._out_of_time():
                return
            if not self._sharing.keep(progress.id):
                break
            attempt = Attempt(TrialKind.SEARCH, candidate.trace, candidate.program, candidate.error)
            latency = self._try(trials, progress, attempt)
            if progress.exhausted:
                break
            results.append((candidate, latency))
        with self._stopwatch.timing(Phase.SEARCH):
            search.tell(results)
        if search.exhausted and len(candidates) < count:
            progress.exhausted = True
            self._listener.on(KernelExhausted(progress.id, self._budget.left))

    def _learn(self, kernel_ids: Collection[str]) -> bool:
        """Takes over what other tuners have found out about the kernels; whether there was anything."""
        changed = self._sharing.news(kernel_ids)
        for identity in changed:
            progress, known = self._budget.kernels[identity], self._recall(self._kernels[identity])
            progress.trials, progress.stale, progress.best_s = known.trials, known.stale, known.best_s
            self._searches.pop(identity, None)
        return bool(changed)

    def _wait(self, kernel_id: str) -> None:
        self._listener.on(Working(kernel_id, Phase.WAIT))
        with self._stopwatch.timing(Phase.WAIT):
            time.sleep(_POLL_S)
            self._store.abandon_dead(host_name())  # what a dead tuner of this host holds need not run out

    def _search_of(self, progress: Progress) -> KernelSearch:
        if progress.id not in self._searches:
            kernel = self._kernels[progress.id]
            with self._stopwatch.timing(Phase.SEARCH):
                self._searches[progress.id] = KernelSearch(
                    kernel, self._request.tier, self._request.seed, self._model, self._tried(kernel)
                )
        return self._searches[progress.id]

    def _try(self, trials: Trials, progress: Progress, attempt: Attempt) -> float | None:
        """One trial, with all that follows from it; its latency, None where it failed."""
        kernel = self._kernels[progress.id]
        if (moved := self._drift.look()) is not None:
            self._listener.on(Drifted(moved.kernel.id, moved.ratio, str(moved)))
        self._listener.on(TrialStarted(kernel.id, attempt.kind))
        try:
            outcome = trials.run(kernel, attempt, progress.best_s)
        except CaseError as error:
            self._leave_out(progress, error.message)
            return None
        if attempt.kind is TrialKind.SEARCH:
            progress.record(outcome.latency_s)
        elif attempt.kind is TrialKind.TRANSFER:
            self._admit(progress, outcome.latency_s)
        elif outcome.latency_s is not None:
            self._baselines[kernel.id] = outcome.latency_s
            self._admit(progress, outcome.latency_s)
        self._drift.saw(kernel, attempt, outcome)
        self._tell(progress, attempt.kind, outcome)
        return outcome.latency_s

    def _again(self, trials: Trials, kernel: Kernel, attempt: Attempt) -> Outcome:
        """Measures a schedule once more: a check, or a repeat, after which the database says what is best."""
        self._listener.on(TrialStarted(kernel.id, TrialKind.CHECK))
        try:
            outcome = trials.run(kernel, attempt, None)
        except CaseError as error:
            return Outcome(TrialState.BUILD_ERROR, None, error.message)
        self._sharing.booked(kernel.id)
        progress = self._budget.kernels[kernel.id]
        if attempt.repeat:
            key = self._request.device.key
            for record in self._store.best(key, [kernel.id], self._runtime).values():
                progress.best_s = record.latency_s
            for record in self._store.baselines(key, [kernel.id], self._runtime).values():
                self._baselines[kernel.id] = record.latency_s
        self._tell(progress, TrialKind.CHECK, outcome)
        return outcome

    def _known_baseline(self) -> tuple[Kernel, Attempt] | None:
        """A baseline of an earlier session that is good to be watched."""
        identity = max(self._baselines, key=lambda known: suitability(self._baselines[known]), default=None)
        if identity is None or not suitability(self._baselines[identity]):
            return None
        kernel = self._kernels[identity]
        record = self._store.baselines(self._request.device.key, [identity], self._runtime)[identity]
        return kernel, stored_attempt(kernel, record.trace, self._request.tier, TrialKind.CHECK)

    def _tell(self, progress: Progress, kind: TrialKind, outcome: Outcome) -> None:
        self._listener.on(
            TrialEnded(
                kernel_id=progress.id,
                kind=kind,
                state=outcome.state,
                latency_s=outcome.latency_s,
                baseline_s=self._baselines.get(progress.id),
                best_s=progress.best_s,
                trials_left=self._budget.left,
                error=outcome.error,
            )
        )

    def _out_of_time(self) -> bool:
        minutes = self._request.minutes
        return minutes is not None and time.monotonic() - self._start >= 60 * minutes

    # What listeners hear

    def _announce(self, session: int) -> None:
        stages = {
            identity: tuple(
                stage.name
                for stage in self._request.capture.stages.values()
                if any(call.kernel == identity for call in stage.calls)
            )
            for identity in self._kernels
        }
        self._listener.on(
            SessionStarted(
                session_id=session,
                model=self._request.capture.model,
                device=self._request.device.key,
                software=self._request.device.software,
                tier=self._request.tier.name,
                kernels=tuple(
                    KernelPlan(
                        id=progress.id,
                        name=self._kernels[progress.id].name,
                        stages=stages[progress.id],
                        calls=progress.calls,
                        trials=progress.trials,
                        baseline_s=self._baselines.get(progress.id),
                        best_s=progress.best_s,
                    )
                    for progress in self._budget.kernels.values()
                ),
                trials_left=self._budget.left,
                minutes=self._request.minutes,
                abandoned=self._abandoned,
            )
        )

    def _end(self, session: int | None, trials: Trials | None, outcome: SessionOutcome) -> TuneSummary:
        measured = [p for p in self._budget.kernels.values() if p.best_s is not None]
        both = [p for p in measured if p.id in self._baselines]
        summary = TuneSummary(
            session_id=session,
            outcome=outcome,
            kernels=len(self._kernels),
            tuned=sum(1 for p in measured if p.best_s != self._baselines.get(p.id)),
            measured=len(measured),
            baseline_s=sum(p.calls * self._baselines[p.id] for p in both),
            best_s=sum(p.calls * (p.best_s or 0.0) for p in both),
            trials=dict(trials.states) if trials else {},
            seconds=dict(self._stopwatch.seconds),
            elapsed_s=time.monotonic() - self._start,
            trials_left=self._budget.left,
            skipped=dict(self._skipped),
            drift=tuple(self._drift.notes()) if trials else (),
        )
        with suppress(Exception):  # whoever watches must not turn a finished session into a failed one
            self._listener.on(SessionEnded(summary))
        return summary


def _given_up(attempt: Attempt, tried: Sequence[TrialSummary]) -> bool:
    """Whether the baseline ``attempt`` failed before in a way that another try would not change."""
    digest = attempt.program.digest if attempt.program else ""
    earlier = [
        trial
        for trial in tried
        if (trial.program_digest == digest if digest else trial.trace == attempt.trace and not trial.program_digest)
    ]
    if not earlier:
        return False
    return len(earlier) >= QUARANTINE_AFTER or any(not trial.state.crash for trial in earlier)
