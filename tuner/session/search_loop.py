"""Search trials in rounds: a few candidates of the kernel that is due, measured; then what they took is learned.

Where work overlaps, each round is proposed while the one before it is measured. So its kernel is chosen, and its
candidates are, without knowing that round's results: the kernel as if none of its trials improved anything, which is
how most end. This lag of one round is the price, and the same every time: what a proposal knows depends on the order of
rounds alone. No program is proposed twice, because a search takes note of what it has proposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from ...database.schema.records import TrialKind, TrialSummary
from ...devices.program import AnyProgram
from ..ir import Kernel
from ..search.evolutionary import Candidate, CostModel, KernelSearch
from ..search.task_scheduler import KernelProgress
from .context import SessionContext
from .events import KernelExhausted, PhaseStarted, SessionPhase
from .phase_timer import PhaseTimer
from .prefetch import Pending
from .trial import Attempt
from .trial_runner import SessionTrials

_Results = list[tuple[Candidate, float | None]]


@dataclass(frozen=True)
class _Round:
    """Candidates of one kernel, and the search that proposed them; ``last`` where it has no others left."""

    search: KernelSearch
    candidates: list[Candidate]
    last: bool


class SearchLoop:
    """Spends a session's budget on search trials."""

    def __init__(self, context: SessionContext, trials: SessionTrials) -> None:
        self._context = context
        self._standing = context.standing
        self._trials = trials
        self._model = CostModel()
        self._searches: dict[str, KernelSearch] = {}
        self._prepared: dict[str, Pending[_Round]] = {}
        self._untold: list[tuple[KernelSearch, _Results]] = []
        """Results that the searches do not know yet: they learn in the thread that they propose in."""

    def run(self) -> None:
        """Searches until the budget or the time is spent; raises as `SessionTrials.run` does."""
        context, sharing = self._context, self._context.sharing
        while due := {progress.id: (progress, count) for progress, count in self._standing.scheduler.due()}:
            if context.over:
                return
            # What is prepared comes first: it was due when the last round began.
            with sharing.holding(sorted(due, key=lambda kernel: kernel not in self._prepared)) as mine:
                # What others did meanwhile may have changed what is due, and what is worth proposing.
                if changed := self._standing.learn(sharing, self._standing.kernels):
                    self._forget(changed)
                elif mine is None:
                    context.wait_for_others(list(due))
                else:
                    self._round(*due[mine])

    def _round(self, progress: KernelProgress, count: int) -> None:
        self._context.listener.on(PhaseStarted(progress.id, SessionPhase.SEARCH))
        self._prepare(progress, count)
        now = self._prepared.pop(progress.id).result()
        self._searches[progress.id] = now.search
        candidates = now.candidates[:count]
        if self._context.ahead.overlapping:
            self._prepare_next(progress, len(candidates), now.last)
        results: _Results = []
        for candidate, following in zip_longest(candidates, candidates[1:]):
            if self._context.over:
                return
            if not self._context.sharing.keep(progress.id):
                self._forget([progress.id])  # whoever took it over may try what is prepared here
                break
            attempt = Attempt(TrialKind.SEARCH, candidate.trace, candidate.program, candidate.error)
            upcoming = following.program if following else self._first_prepared()
            latency = self._trials.run(progress, attempt, upcoming)
            if progress.exhausted:
                break
            results.append((candidate, latency))
        self._untold.append((now.search, results))
        if now.last and not progress.exhausted:
            progress.exhausted = True
            self._context.listener.on(KernelExhausted(progress.id, self._standing.scheduler.left))

    def _first_prepared(self) -> AnyProgram | None:
        """What the next round begins with, if that is known by now."""
        rounds = (pending.glance() for pending in self._prepared.values())
        return next((one.candidates[0].program for one in rounds if one and one.candidates), None)

    def _prepare_next(self, current: KernelProgress, count: int, last: bool) -> None:
        """Has the round proposed that will be due after ``count`` trials of ``current``, its ``last`` ones or not."""
        for progress, trials in self._standing.scheduler.due({current.id: count}):
            if progress is not current or not last:
                self._prepare(progress, trials)
                return

    def _prepare(self, progress: KernelProgress, count: int) -> None:
        """Has a round of the kernel proposed, unless one is; what is measured by now will be known to it."""
        if progress.id in self._prepared:
            return
        kernel = self._standing.kernels[progress.id]
        untold, self._untold = self._untold, []
        search = self._searches.get(kernel.id)
        tried = self._standing.tried(kernel) if search is None else []

        def work(stopwatch: PhaseTimer) -> _Round:
            with stopwatch.timing(SessionPhase.SEARCH):
                for other, results in untold:
                    other.tell(results)
                proposing = search or self._new_search(kernel, tried)
            return _propose(proposing, count, stopwatch)

        self._prepared[kernel.id] = self._context.ahead.prepare(work)
        self._trials.prepare(kernel)

    def _new_search(self, kernel: Kernel, tried: list[TrialSummary]) -> KernelSearch:
        request = self._context.request
        return KernelSearch(kernel, request.tier, request.seed, self._model, tried)

    def _forget(self, kernel_ids: Iterable[str]) -> None:
        """Drops searches that do not know what others have tried, with what they have proposed."""
        for kernel in kernel_ids:
            self._searches.pop(kernel, None)
            self._prepared.pop(kernel, None)


def _propose(search: KernelSearch, count: int, stopwatch: PhaseTimer) -> _Round:
    emitting = search.emit_s
    with stopwatch.timing(SessionPhase.SEARCH):
        candidates = search.propose(count)
    stopwatch.add(SessionPhase.BUILD, search.emit_s - emitting)
    stopwatch.add(SessionPhase.SEARCH, emitting - search.emit_s)
    return _Round(search, candidates, search.exhausted)
