"""The first trial of every kernel: its untuned schedule, or the next one where that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ...database.schema.records import TrialKind, TrialSummary
from ...devices.limits import Tier
from ...devices.program import AnyProgram
from ...support.enums import QUARANTINE_AFTER
from ..codegen.baseline_schedules import baseline_schedules
from ..codegen.emit import emit
from ..codegen.traces import trace_to_json
from ..codegen.wgsl import EmitError
from ..ir import Kernel
from ..search.task_scheduler import KernelProgress
from .context import SessionContext
from .events import SessionPhase
from .phase_timer import PhaseTimer
from .prefetch import Pending
from .trial import Attempt
from .trial_runner import SessionTrials

_AHEAD = 2
"""Kernels prepared beside the one that is measured: what the driver is to compile next must be lowered by then."""


class Baselines:
    """Measures the baselines that a session lacks, the heaviest kernels first.

    While one is measured, the next kernels' schedules are lowered, compiled, and their references computed.
    """

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._standing = context.standing
        self._prepared: dict[str, tuple[_Lowering, Pending[Attempt | None]]] = {}

    def missing(self) -> list[KernelProgress]:
        """Kernels without a baseline that may still get one, the heaviest first.

        Kernels whose untuned schedules all failed to become WGSL within the tier are left out.
        """
        return [
            progress
            for progress in self._standing.by_weight()
            if progress.id not in self._standing.baselines and not progress.exhausted and self._has_untried(progress)
        ]

    def measure(self, trials: SessionTrials) -> None:
        """Measures what is missing, as long as there is time; raises as `SessionTrials.run` does."""
        context, known = self._context, self._standing.baselines
        missing = {progress.id: progress for progress in self.missing()}
        while missing and not context.over:
            with context.sharing.holding(list(missing)) as mine:
                self._standing.learn(context.sharing, missing if mine is None else [mine])
                if mine is None:
                    context.wait_for_others(list(missing))
                elif mine not in known:
                    for kernel in [mine, *islice((other for other in missing if other != mine), _AHEAD)]:
                        self._prepare(trials, kernel)
                    if not self._measure(trials, missing[mine]):
                        return
            missing = {kernel: p for kernel, p in missing.items() if kernel != mine and kernel not in known}

    def _measure(self, trials: SessionTrials, progress: KernelProgress) -> bool:
        """Tries the kernel's untuned schedules until one works; False where there is no time for that any more."""
        tried = self._standing.tried(self._standing.kernels[progress.id])
        attempts = []
        for attempt in self._attempts(progress):
            attempts.append(attempt)
            if _given_up(attempt, tried):
                continue
            if self._context.over:
                return False
            trials.run(progress, attempt, self._first_prepared())
            if progress.id in self._standing.baselines or progress.exhausted:
                return True
        self._leave_out_unless_emitted(progress, attempts)
        return True

    def _first_prepared(self) -> AnyProgram | None:
        """The baseline of the next kernel, if it is lowered by now."""
        attempts = (pending.glance() for _, pending in self._prepared.values())
        return next((attempt.program for attempt in attempts if attempt), None)

    def _has_untried(self, progress: KernelProgress) -> bool:
        tried = self._standing.tried(self._standing.kernels[progress.id])
        if not any(trial.kind is TrialKind.BASELINE for trial in tried):
            return True
        attempts = []
        for attempt in self._attempts(progress):
            if not _given_up(attempt, tried):
                return True
            attempts.append(attempt)
        self._leave_out_unless_emitted(progress, attempts)
        return False

    def _leave_out_unless_emitted(self, progress: KernelProgress, attempts: Sequence[Attempt]) -> None:
        """Leaves a kernel alone whose untuned schedules all failed to become WGSL within the tier: so would others."""
        if attempts and all(attempt.program is None for attempt in attempts):
            self._standing.leave_out(progress, attempts[-1].error)

    def _prepare(self, trials: SessionTrials, kernel_id: str) -> None:
        if kernel_id not in self._prepared:
            self._prepared[kernel_id] = self._begin(kernel_id)
            trials.prepare(self._standing.kernels[kernel_id])

    def _begin(self, kernel_id: str) -> tuple[_Lowering, Pending[Attempt | None]]:
        lowering = _Lowering(self._standing.kernels[kernel_id], self._context.request.tier)
        return lowering, self._context.ahead.prepare(lowering.next)

    def _attempts(self, progress: KernelProgress) -> Iterator[Attempt]:
        """Untuned schedules in the order in which they should be tried, lowered one by one."""
        begun = self._prepared.pop(progress.id, None)
        lowering, pending = self._begin(progress.id) if begun is None else begun
        while (attempt := pending.result()) is not None:
            yield attempt
            pending = self._context.ahead.prepare(lowering.next)


class _Lowering:
    """The untuned schedules of a kernel as attempts."""

    def __init__(self, kernel: Kernel, tier: Tier) -> None:
        self._tier = tier
        self._schedules = baseline_schedules(kernel, tier)

    def next(self, stopwatch: PhaseTimer) -> Attempt | None:
        """The next of them; None where there is none."""
        with stopwatch.timing(SessionPhase.BUILD):
            schedule = next(self._schedules, None)
            if schedule is None:
                return None
            program, error = None, ""
            try:
                program = emit(schedule.mod, self._tier)
            except EmitError as failure:
                error = failure.message
            return Attempt(TrialKind.BASELINE, trace_to_json(schedule), program, error)


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
