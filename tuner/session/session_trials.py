"""A session's trials with all that follows from each: the budget, what is best now, drift, and what listeners hear."""

from __future__ import annotations

from ...database.schema.records import TrialKind
from ...devices.native_program import AnyProgram
from ...support.enums import TrialState
from ..ir import Kernel
from ..reference.reference import CaseError
from ..search.task_scheduler import Progress
from .context import SessionContext
from .drift import DriftWatch, suitability
from .events import Drifted, Phase, TrialEnded, TrialStarted
from .phase_timer import Stopwatch
from .stored_kernel import stored_attempt
from .trials import Attempt, Outcome, Trials


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

    def run(self, progress: Progress, attempt: Attempt, upcoming: AnyProgram | None = None) -> float | None:
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
        except CaseError as error:
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
        except CaseError as error:
            return Outcome(TrialState.BUILD_ERROR, None, error.message)
        self._context.sharing.booked(kernel.id)
        progress = self._standing.budget.kernels[kernel.id]
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

        def lower(stopwatch: Stopwatch) -> Attempt:
            with stopwatch.timing(Phase.BUILD):
                return stored_attempt(kernel, record.trace, request.tier, TrialKind.CHECK)

        return kernel, self._context.ahead.do(lower)

    def _tell(self, progress: Progress, kind: TrialKind, outcome: Outcome) -> None:
        self._context.listener.on(
            TrialEnded(
                kernel_id=progress.id,
                kind=kind,
                state=outcome.state,
                latency_s=outcome.latency_s,
                baseline_s=self._standing.baselines.get(progress.id),
                best_s=progress.best_s,
                trials_left=self._standing.budget.left,
                error=outcome.error,
            )
        )
