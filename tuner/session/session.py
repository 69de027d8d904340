"""A tuning session: baselines first, then search where the image's time is, every trial committed as it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from ...database.processes import host_name
from ...database.schema.records import SessionOutcome
from ...database.store import Store
from ...devices.measure.job import Peaks
from ...devices.worker.factory import MeasuringWorker, OpenWorker, open_worker
from ...support.enums import TrialState
from ...support.signals import Interrupted, Interrupts
from ..codegen.tvm_native import tier_for
from ..reference.roofline import floor_seconds
from .baselines import Baselines
from .context import SessionContext
from .events import KernelPlan, SessionEnded, SessionPhase, SessionStarted, Stopping, TuneListener, TuneSummary
from .kernel_state import KernelLeases, KernelStates
from .phase_timer import PhaseTimer
from .prefetch import Prefetcher
from .registration import check_cache_state, register_model, select_kernels, session_info
from .request import TuneRequest
from .search_loop import SearchLoop
from .transfer import try_relatives, untried_relatives
from .trial_runner import SessionTrials, Trials


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
    started = time.monotonic()
    request = replace(request, tier=tier_for(request.device, request.tier))
    kernels = {kernel.id: kernel for kernel in select_kernels(request.capture, request.stages, request.kernels)}
    check_cache_state(store, request.device, request.cache)
    abandoned = store.abandon_dead(host_name())
    sharing = KernelLeases(store, request.device.key, request.device.runtime, kernels)
    standing = KernelStates(request, store, listener, kernels)
    stopwatch = PhaseTimer()
    interrupts = Interrupts(
        on_request=lambda: listener.on(Stopping()),
        on_leave=lambda: listener.on(Stopping(at_once=True)),
    )
    with interrupts, Prefetcher(stopwatch, request.overlapping) as ahead:
        context = SessionContext(request, store, listener, interrupts, stopwatch, ahead, sharing, standing, started)
        return _Session(context, abandoned).run(opener)


class _Session:
    """One run; ``abandoned`` are the trials that a dead session had left running."""

    def __init__(self, context: SessionContext, abandoned: int) -> None:
        self._context = context
        self._request = context.request
        self._store = context.store
        self._standing = context.standing
        self._abandoned = abandoned

    def run(self, opener: OpenWorker) -> TuneSummary:
        context, request = self._context, self._request
        transfers: Mapping[str, Sequence[str]] = {}
        if request.transfer:
            kernels = list(self._standing.kernels.values())
            transfers = untried_relatives(self._store, request.device, request.tier, kernels)
        baselines = Baselines(context)
        if not baselines.missing() and not transfers and self._standing.scheduler.left == 0:
            return self._end(None, None, SessionOutcome.COMPLETED)
        register_model(self._store, request.capture, request.steps)
        worker = opener(request.device, request.timeouts)
        try:
            with context.interrupts.cutting_short(), context.stopwatch.timing(SessionPhase.WORKER):
                peaks = worker.calibrate()
            return self._measure(worker, peaks, baselines, transfers)
        except Interrupted:
            return self._end(None, None, SessionOutcome.INTERRUPTED)
        finally:
            worker.close()

    def _measure(
        self, worker: MeasuringWorker, peaks: Peaks, baselines: Baselines, transfers: Mapping[str, Sequence[str]]
    ) -> TuneSummary:
        context, request = self._context, self._request
        for progress in self._standing.scheduler.kernels.values():
            progress.estimate_s = floor_seconds(self._standing.kernels[progress.id], peaks)
        info = session_info(
            request.device, request.capture, request.tier, request.budget_json(), request.seed, request.reason
        )
        session = self._store.begin_session(replace(info, cache=request.cache))
        context.sharing.join(session)
        trials = SessionTrials(
            context,
            Trials(
                self._store,
                session,
                worker,
                peaks,
                request.seed,
                context.stopwatch,
                context.interrupts,
                context.listener,
                request.cache,
                context.ahead,
            ),
        )
        outcome, note = SessionOutcome.FAILED, ""
        try:
            context.listener.on(session_started(session, request, self._standing, self._abandoned))
            try:
                baselines.measure(trials)
                try_relatives(context, trials, transfers)
                SearchLoop(context, trials).run()
                outcome = SessionOutcome.INTERRUPTED if context.interrupts.requested else SessionOutcome.COMPLETED
            except Interrupted:
                outcome = SessionOutcome.INTERRUPTED
            note = "\n".join(trials.notes())
        except BaseException as error:
            note = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._store.end_session(session, outcome, note)
        return self._end(session, trials, outcome)

    def _end(self, session: int | None, trials: SessionTrials | None, outcome: SessionOutcome) -> TuneSummary:
        summary = summarize(
            session,
            outcome,
            self._standing,
            self._context.stopwatch,
            self._context.started,
            trials.states if trials else {},
            tuple(trials.notes()) if trials else (),
        )
        with suppress(Exception):  # whoever watches must not turn a finished session into a failed one
            self._context.listener.on(SessionEnded(summary))
        return summary


def session_started(session: int, request: TuneRequest, standing: KernelStates, abandoned: int) -> SessionStarted:
    """The plan of a session; ``abandoned`` are the trials that a dead one had left running."""
    stages = {
        identity: tuple(
            stage.name
            for stage in request.capture.stages.values()
            if any(call.kernel == identity for call in stage.calls)
        )
        for identity in standing.kernels
    }
    return SessionStarted(
        session_id=session,
        model=request.capture.model,
        device=request.device.key,
        software=request.device.software,
        tier=request.tier.name,
        kernels=tuple(
            KernelPlan(
                id=progress.id,
                name=standing.kernels[progress.id].name,
                stages=stages[progress.id],
                calls=progress.calls,
                trials=progress.trials,
                baseline_s=standing.baselines.get(progress.id),
                best_s=progress.best_s,
            )
            for progress in standing.scheduler.kernels.values()
        ),
        trials_left=standing.scheduler.left,
        minutes=request.minutes,
        abandoned=abandoned,
    )


def summarize(
    session: int | None,
    outcome: SessionOutcome,
    standing: KernelStates,
    stopwatch: PhaseTimer,
    started: float,
    states: Mapping[TrialState, int],
    drift: tuple[str, ...],
) -> TuneSummary:
    """The summary of a session that began at ``started`` (of time.monotonic); None as ``session`` where none did."""
    measured = [p for p in standing.scheduler.kernels.values() if p.best_s is not None]
    both = [p for p in measured if p.id in standing.baselines]
    return TuneSummary(
        session_id=session,
        outcome=outcome,
        kernels=len(standing.kernels),
        tuned=sum(1 for p in measured if p.best_s != standing.baselines.get(p.id)),
        measured=len(measured),
        baseline_s=sum(p.calls * standing.baselines[p.id] for p in both),
        best_s=sum(p.calls * (p.best_s or 0.0) for p in both),
        trials=dict(states),
        seconds=dict(stopwatch.seconds),
        elapsed_s=time.monotonic() - started,
        trials_left=standing.scheduler.left,
        skipped=dict(standing.skipped),
        drift=drift,
        overlapped=dict(stopwatch.overlapped),
    )
