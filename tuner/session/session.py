"""A tuning session: baselines, known schedules, then search; every trial is committed when it ends.

`tune` reads what the database knows of the kernels, starts a worker and runs these three steps. Each step has a module
of its own (`baselines`, `transfer`, `search_loop`) and runs its trials with the session's `TrialRunner`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from ...database.liveness import host_name
from ...database.schema.records import Record, SessionOutcome
from ...database.store import Store
from ...devices.worker.factory import OpenWorker, open_worker
from ...support.signals import Interrupted, Interrupts
from ..codegen.tvm_native import tier_for
from ..reference.roofline import floor_seconds
from .baselines import Baselines
from .context import SessionContext
from .events import (
    KernelPlan,
    SessionEnded,
    SessionPhase,
    SessionStarted,
    SilentListener,
    Stopping,
    TuneListener,
    TuneSummary,
)
from .kernel_state import KernelLeases, KernelStates
from .phase_timer import PhaseTimer
from .prefetch import Prefetcher
from .registration import check_cache_state, register_model, select_kernels, session_info
from .request import TuneRequest, check_precision
from .search_loop import search_kernels
from .transfer import outdated_records, run_transfers, transfer_candidates, verify_again
from .trial_runner import TrialRunner

_SILENT = SilentListener()


def tune(
    request: TuneRequest,
    store: Store,
    listener: TuneListener = _SILENT,
    opener: OpenWorker = open_worker,
) -> TuneSummary:
    """Tune the kernels of ``request`` as far as ``store`` does not know them yet.

    A kernel's baseline is its first trial and competes with all others, so a tuned kernel is never slower than it.
    Killing the process at any moment loses at most the running trial; the same request continues from there. Tuners of
    one device that share a database share its kernels out. The first SIGINT or SIGTERM abandons the running trial and
    ends the session as interrupted; the second one ends the process.

    Args:
        request: what to tune, where, and for how long.
        store: the database.
        listener: told of every event, in this thread; by default nobody is.
        opener: makes the worker that measures.

    Raises:
        UsageError: the device cannot run kernels of the capture's precision, the model lacks a requested stage or
            kernel, or the database holds times of the device that were
            taken with caches in another state.
        DeviceError: the device does not start, or stopped working; trials that ended before are committed.
        DatabaseError: the database fails.
    """
    started = time.monotonic()
    check_precision(request.device, request.capture.options.compute)
    request = replace(request, tier=tier_for(request.device, request.tier))
    kernels = {kernel.id: kernel for kernel in select_kernels(request.capture, request.stages, request.kernels)}
    check_cache_state(store, request.device, request.cache)
    abandoned = store.abandon_dead(host_name())
    leases = KernelLeases(store, request.device.key, request.device.runtime, kernels)
    states = KernelStates(request, store, listener, kernels, leases)
    timer = PhaseTimer()
    interrupts = Interrupts(
        on_request=lambda: listener.on(Stopping()),
        on_leave=lambda: listener.on(Stopping(at_once=True)),
    )
    with interrupts, Prefetcher(timer, request.overlapping) as prefetcher:
        context = SessionContext(
            store=store,
            listener=listener,
            interrupts=interrupts,
            timer=timer,
            prefetcher=prefetcher,
            seed=request.seed,
            cache=request.cache,
            request=request,
            leases=leases,
            kernel_states=states,
            started=started,
        )
        candidates: Mapping[str, Sequence[str]] = {}
        if request.transfer and request.warm:
            candidates = transfer_candidates(store, request.device, request.tier, list(kernels.values()))
        baselines = Baselines(context)
        outdated = outdated_records(context)
        if not (baselines.missing or outdated or candidates) and states.scheduler.left == 0:
            return _finish(context, None, SessionOutcome.COMPLETED)
        register_model(store, request.capture, request.steps)
        worker = opener(request.device, request.timeouts)
        try:
            with interrupts.cutting_short(), timer.timing(SessionPhase.WORKER):
                peaks = worker.calibrate()
            for progress in states.scheduler.kernels.values():
                progress.estimate_s = floor_seconds(kernels[progress.id], peaks)
            session_id = store.begin_session(session_info(request, peaks))
            leases.begin(session_id)
            runner = TrialRunner(context, session_id, worker, peaks)
            outcome = _run_trials(context, runner, baselines, outdated, candidates, abandoned)
            return _finish(context, runner, outcome)
        except Interrupted:
            return _finish(context, None, SessionOutcome.INTERRUPTED)
        finally:
            worker.close()


def _run_trials(
    context: SessionContext,
    runner: TrialRunner,
    baselines: Baselines,
    outdated: Mapping[str, Record],
    candidates: Mapping[str, Sequence[str]],
    abandoned: int,
) -> SessionOutcome:
    """Run all trials of the session; it is ended in the database even if one raises."""
    outcome, note = SessionOutcome.FAILED, ""
    try:
        context.listener.on(_session_started(context, runner.session_id, abandoned))
        try:
            baselines.measure(runner)
            verify_again(context, runner, outdated)
            run_transfers(context, runner, candidates)
            search_kernels(context, runner)
            outcome = SessionOutcome.INTERRUPTED if context.interrupts.requested else SessionOutcome.COMPLETED
        except Interrupted:
            outcome = SessionOutcome.INTERRUPTED
        note = "\n".join(runner.notes())
    except BaseException as error:
        note = f"{type(error).__name__}: {error}"
        raise
    finally:
        context.store.end_session(runner.session_id, outcome, note)
    return outcome


def _session_started(context: SessionContext, session_id: int, abandoned: int) -> SessionStarted:
    """Return the session's first event; ``abandoned`` is the number of trials that a dead session left running."""
    request, states = context.request, context.kernel_states
    stages = {
        kernel_id: tuple(
            stage.name
            for stage in request.capture.stages.values()
            if any(call.kernel == kernel_id for call in stage.calls)
        )
        for kernel_id in states.kernels
    }
    return SessionStarted(
        session_id=session_id,
        model=request.capture.model,
        device=request.device.key,
        software=request.device.software,
        tier=request.tier.name,
        kernels=tuple(
            KernelPlan(
                id=progress.id,
                name=states.kernels[progress.id].name,
                stages=stages[progress.id],
                calls=progress.calls,
                trials=progress.trials,
                baseline_s=states.baselines.get(progress.id),
                best_s=progress.best_s,
            )
            for progress in states.scheduler.kernels.values()
        ),
        trials_left=states.scheduler.left,
        minutes=request.minutes,
        abandoned=abandoned,
    )


def _finish(context: SessionContext, runner: TrialRunner | None, outcome: SessionOutcome) -> TuneSummary:
    """Return the session's summary and send it as the last event; ``runner`` is None if no session was begun."""
    states = context.kernel_states
    measured = [p for p in states.scheduler.kernels.values() if p.best_s is not None]
    with_baseline = [p for p in measured if p.id in states.baselines]
    summary = TuneSummary(
        session_id=runner.session_id if runner else None,
        outcome=outcome,
        kernels=len(states.kernels),
        tuned=sum(1 for p in measured if p.best_s != states.baselines.get(p.id)),
        measured=len(measured),
        baseline_s=sum(p.calls * states.baselines[p.id] for p in with_baseline),
        best_s=sum(p.calls * (p.best_s or 0.0) for p in with_baseline),
        trials=dict(runner.states) if runner else {},
        seconds=dict(context.timer.seconds),
        elapsed_s=time.monotonic() - context.started,
        trials_left=states.scheduler.left,
        skipped=dict(states.skipped),
        drift=tuple(runner.notes()) if runner else (),
        overlapped=dict(context.timer.overlapped),
    )
    with suppress(Exception):  # a listener that fails must not make a finished session a failed one
        context.listener.on(SessionEnded(summary))
    return summary
