"""What listeners hear of a session as a whole: its plan when it begins, its summary when it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ...database.schema.records import SessionOutcome
from ...support.enums import TrialState
from .events import KernelPlan, SessionStarted, TuneSummary
from .kernel_state import Standing
from .phase_timer import Stopwatch
from .request import TuneRequest


def session_started(session: int, request: TuneRequest, standing: Standing, abandoned: int) -> SessionStarted:
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
            for progress in standing.budget.kernels.values()
        ),
        trials_left=standing.budget.left,
        minutes=request.minutes,
        abandoned=abandoned,
    )


def summarize(
    session: int | None,
    outcome: SessionOutcome,
    standing: Standing,
    stopwatch: Stopwatch,
    started: float,
    states: Mapping[TrialState, int],
    drift: tuple[str, ...],
) -> TuneSummary:
    """The summary of a session that began at ``started`` (of time.monotonic); None as ``session`` where none did."""
    measured = [p for p in standing.budget.kernels.values() if p.best_s is not None]
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
        trials_left=standing.budget.left,
        skipped=dict(standing.skipped),
        drift=drift,
        overlapped=dict(stopwatch.overlapped),
    )
