"""Baseline trials: the first untuned schedule of each kernel that works on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice

from ...database.schema.records import TrialKind, TrialSummary
from ...devices.limits import Tier
from ...devices.program import AnyProgram
from ...devices.quirks import Quirks
from ...support.enums import QUARANTINE_AFTER, TrialState
from ..codegen.baseline_schedules import baseline_schedules
from ..codegen.emit import emit
from ..codegen.traces import trace_to_json
from ..codegen.wgsl import EmitError
from ..ir import Kernel
from ..search.task_scheduler import KernelProgress
from .context import SessionContext
from .events import SessionPhase
from .phase_timer import PhaseTimer
from .prefetch import Prefetched
from .trial import Attempt
from .trial_runner import TrialRunner

_PREPARED = 2
"""Kernels prepared beside the measured one: the driver can compile a program meanwhile only once it is lowered."""


class Baselines:
    """Measures the missing baselines of a session, kernels with the longest time per image first.

    A baseline is missing, too, where the database only has those of other programs than today's untuned schedules are.
    While one kernel is measured, the following kernels' schedules are lowered and their references computed.
    """

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._states = context.kernel_states
        self._prepared: dict[str, tuple[_Lowering, Prefetched[Attempt | None]]] = {}

    @cached_property
    def missing(self) -> frozenset[str]:
        """The ids of the kernels without a baseline that still have an untried schedule.

        Kernels whose schedules all fail to lower within the tier are skipped from then on.
        """
        kernels = self._states.by_time()
        return frozenset(one.id for one in kernels if not one.exhausted and self._is_missing(one))

    def measure(self, runner: TrialRunner) -> None:
        """Measure the missing baselines until the session has to stop.

        Raises:
            Interrupted: the user asked to stop.
            DeviceError: the device does not work any more.
        """
        context, known = self._context, self._states.baselines
        missing = {progress.id: progress for progress in self._states.by_time() if progress.id in self.missing}
        while missing and not context.should_stop:
            with context.leases.hold_first(list(missing)) as leased:
                self._states.refresh(missing if leased is None else [leased])
                if leased is None:
                    context.wait_for_leases(list(missing))
                elif leased not in known:
                    following = islice((other for other in missing if other != leased), _PREPARED)
                    for kernel_id in [leased, *following]:
                        self._prepare(runner, kernel_id)
                    if not self._measure_kernel(runner, missing[leased]):
                        return
            missing = {kernel: p for kernel, p in missing.items() if kernel != leased and kernel not in known}

    def _measure_kernel(self, runner: TrialRunner, progress: KernelProgress) -> bool:
        """Try the kernel's untuned schedules until one works; False if the session has to stop before."""
        tried = self._states.tried(progress.id)
        attempts = []
        for attempt in self._attempts(progress):
            attempts.append(attempt)
            if _given_up(attempt, tried):
                continue
            if self._context.should_stop:
                return False
            # As another program than before, it takes the earlier one's place.
            again = any(trial.trace == attempt.trace for trial in tried)
            runner.run(progress, replace(attempt, repeat=again), self._first_prepared_program())
            if progress.id in self._states.baselines or progress.exhausted:
                return True
        self._skip_if_none_lowered(progress, attempts)
        return True

    def _first_prepared_program(self) -> AnyProgram | None:
        """Return the first baseline program of the next kernel, if it is lowered by now."""
        attempts = (pending.peek() for _, pending in self._prepared.values())
        return next((attempt.program for attempt in attempts if attempt), None)

    def _is_missing(self, progress: KernelProgress) -> bool:
        tried = self._states.tried(progress.id)
        if progress.id not in self._states.baselines:
            return self._has_untried(progress, tried)
        verified = {
            trial.program_digest: trial.latency_s
            for trial in tried
            if trial.kind is TrialKind.BASELINE and trial.state is TrialState.OK and trial.latency_s is not None
        }
        for attempt in self._attempts(progress):
            latency_s = verified.get(attempt.program.digest) if attempt.program else None
            if latency_s is not None:
                self._states.baselines[progress.id] = latency_s
                return False
            if not _earlier(attempt, tried):
                self._states.forget_baseline(progress.id)
                return True
        return False

    def _has_untried(self, progress: KernelProgress, tried: Sequence[TrialSummary]) -> bool:
        if not any(trial.kind is TrialKind.BASELINE for trial in tried):
            return True
        attempts = []
        for attempt in self._attempts(progress):
            if not _given_up(attempt, tried):
                return True
            attempts.append(attempt)
        self._skip_if_none_lowered(progress, attempts)
        return False

    def _skip_if_none_lowered(self, progress: KernelProgress, attempts: Sequence[Attempt]) -> None:
        """Skip a kernel if none of its untuned schedules could be lowered: tuned ones would fail as well."""
        if attempts and all(attempt.program is None for attempt in attempts):
            self._states.skip(progress, attempts[-1].error)

    def _prepare(self, runner: TrialRunner, kernel_id: str) -> None:
        if kernel_id not in self._prepared:
            self._prepared[kernel_id] = self._begin(kernel_id)
            runner.prepare(self._states.kernels[kernel_id])

    def _begin(self, kernel_id: str) -> tuple[_Lowering, Prefetched[Attempt | None]]:
        """Submit the lowering of the kernel's first untuned schedule."""
        request = self._context.request
        lowering = _Lowering(self._states.kernels[kernel_id], request.tier, request.quirks)
        return lowering, self._context.prefetcher.submit(lowering.next)

    def _attempts(self, progress: KernelProgress) -> Iterator[Attempt]:
        """Yield the kernel's untuned schedules, the best first, each lowered when the one before it was taken."""
        prepared = self._prepared.pop(progress.id, None)
        lowering, pending = self._begin(progress.id) if prepared is None else prepared
        while (attempt := pending.result()) is not None:
            yield attempt
            pending = self._context.prefetcher.submit(lowering.next)


class _Lowering:
    """Lowers the untuned schedules of a kernel one by one."""

    def __init__(self, kernel: Kernel, tier: Tier, quirks: Quirks) -> None:
        self._tier = tier
        self._schedules = baseline_schedules(kernel, tier, quirks)

    def next(self, timer: PhaseTimer) -> Attempt | None:
        """Lower the next schedule; None if there is none."""
        with timer.timing(SessionPhase.BUILD):
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
    earlier = _earlier(attempt, tried)
    if not earlier:
        return False
    return len(earlier) >= QUARANTINE_AFTER or any(not trial.state.crash for trial in earlier)


def _earlier(attempt: Attempt, tried: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Return the trials of the attempt's program, or of its trace where it could not be lowered."""
    digest = attempt.program.digest if attempt.program else ""
    return [
        trial
        for trial in tried
        if (trial.program_digest == digest if digest else trial.trace == attempt.trace and not trial.program_digest)
    ]
