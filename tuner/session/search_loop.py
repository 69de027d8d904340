"""The search loop: rounds of a few candidates of one kernel, measured, then learned from.

If the session overlaps work, each round is proposed while the round before it is measured. Its kernel and its
candidates are then chosen without the results of that earlier round: the scheduler assumes that none of its trials
improves on the best, which is how most trials end. This lag of one round is the price of overlapping. It is the same in
every run, because a proposal depends only on the order of rounds. A search remembers what it has proposed, so no
program is proposed twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import zip_longest

from ...database.schema.records import TrialKind
from ...devices.program import AnyProgram
from ..search.cost_model import CostModel
from ..search.evolutionary import Candidate, KernelSearch
from ..search.knowledge import features_of, known_examples, lent_schedules
from ..search.task_scheduler import KernelProgress
from .context import SessionContext
from .events import KernelExhausted, PhaseStarted, SessionPhase
from .phase_timer import PhaseTimer
from .prefetch import Prefetched
from .trial import Attempt
from .trial_runner import TrialRunner

_Result = tuple[Candidate, float | None]
"""A candidate and its latency in seconds, None if its trial failed."""


def search_kernels(context: SessionContext, runner: TrialRunner) -> None:
    """Run search trials until the budget or the session's time is spent.

    Raises:
        Interrupted: the user asked to stop.
        DeviceError: the device does not work any more.
    """
    states, leases = context.kernel_states, context.leases
    proposer = _RoundProposer(context, runner)
    while due := {progress.id: (progress, count) for progress, count in states.scheduler.due()}:
        if context.should_stop:
            return
        with leases.hold_first(proposer.prepared_first(due)) as leased:
            # Trials of other tuners may have changed which kernel is due, and which candidates are worth proposing.
            if changed := states.refresh(states.kernels):
                proposer.discard(changed)
                continue
            if leased is None:
                context.wait_for_leases(list(due))
                continue
            progress, count = due[leased]
            context.listener.on(PhaseStarted(leased, SessionPhase.SEARCH))
            current = proposer.propose(progress, count)
            candidates = current.candidates[:count]
            if context.prefetcher.overlapping:
                proposer.prepare_following(progress, len(candidates), current.last)
            results: list[_Result] = []
            for candidate, following in zip_longest(candidates, candidates[1:]):
                if context.should_stop:
                    return
                if not leases.renew(leased):
                    # The tuner that took the kernel over may try what is prepared here.
                    proposer.discard([leased])
                    break
                attempt = Attempt(
                    TrialKind.SEARCH, candidate.trace, candidate.program, candidate.error, features=candidate.features
                )
                upcoming = following.program if following else proposer.first_prepared_program()
                latency_s = runner.run(progress, attempt, upcoming)
                if progress.exhausted:
                    break
                results.append((candidate, latency_s))
            proposer.add_results(current.search, results)
            if current.last and not progress.exhausted:
                progress.exhausted = True
                context.listener.on(KernelExhausted(leased, states.scheduler.left))


@dataclass(frozen=True)
class _Round:
    """Candidates of one kernel and the search that proposed them; ``last`` if the search has no others left."""

    search: KernelSearch
    candidates: list[Candidate]
    last: bool


class _RoundProposer:
    """Proposes rounds, in the background if the session overlaps work.

    A search is used by the prefetcher's thread alone, so it is told results there, just before it proposes again.
    """

    def __init__(self, context: SessionContext, runner: TrialRunner) -> None:
        self._context = context
        self._runner = runner
        self._searches: dict[str, KernelSearch] = {}
        self._prepared: dict[str, Prefetched[_Round]] = {}
        self._new_results: list[tuple[KernelSearch, list[_Result]]] = []

    @cached_property
    def _cost_model(self) -> CostModel:
        """The session's model, which starts from what the database knows: read where there is something to search."""
        request, kernels = self._context.request, self._context.kernel_states.kernels
        model = CostModel(features_of(request.device, asdict(self._runner.peaks)))
        model.know(known_examples(self._context.store, request.device, kernels, others=request.warm))
        return model

    def prepared_first(self, kernel_ids: Iterable[str]) -> list[str]:
        """Return ``kernel_ids`` with the kernels of prepared rounds first: these were due when the last round began."""
        return sorted(kernel_ids, key=lambda kernel_id: kernel_id not in self._prepared)

    def propose(self, progress: KernelProgress, count: int) -> _Round:
        """Return the kernel's prepared round, or propose ``count`` candidates now."""
        self._prepare(progress, count)
        proposed = self._prepared.pop(progress.id).result()
        self._searches[progress.id] = proposed.search
        return proposed

    def prepare_following(self, current: KernelProgress, count: int, last: bool) -> None:
        """Prepare the round that will be due after ``count`` trials of ``current``.

        Args:
            current: the kernel whose round is about to be measured.
            count: the trials of that round.
            last: whether the kernel has no candidates after that round.
        """
        for progress, trials in self._context.kernel_states.scheduler.due({current.id: count}):
            if progress is not current or not last:
                self._prepare(progress, trials)
                return

    def first_prepared_program(self) -> AnyProgram | None:
        """Return the first program of the next round, if that is proposed by now."""
        rounds = (pending.peek() for pending in self._prepared.values())
        return next((one.candidates[0].program for one in rounds if one and one.candidates), None)

    def add_results(self, search: KernelSearch, results: list[_Result]) -> None:
        """Keep the results of a round, for ``search`` to learn from before the next proposal."""
        self._new_results.append((search, results))

    def discard(self, kernel_ids: Iterable[str]) -> None:
        """Drop the kernels' searches and prepared rounds, because they do not know other tuners' trials."""
        for kernel_id in kernel_ids:
            self._searches.pop(kernel_id, None)
            self._prepared.pop(kernel_id, None)

    def _prepare(self, progress: KernelProgress, count: int) -> None:
        """Submit a proposal for the kernel unless one is prepared; it learns from the results so far."""
        if progress.id in self._prepared:
            return
        states, request = self._context.kernel_states, self._context.request
        kernel = states.kernels[progress.id]
        new_results, self._new_results = self._new_results, []
        known = self._searches.get(kernel.id)
        tried = states.tried(kernel.id) if known is None else []
        lend = known is None and request.warm
        lent = lent_schedules(self._context.store, request.device, kernel.id) if lend else []
        model = self._cost_model  # reads the database, which is this thread's

        def work(timer: PhaseTimer) -> _Round:
            with timer.timing(SessionPhase.SEARCH):
                for search, results in new_results:
                    search.tell(results)
                proposing = known or KernelSearch(
                    kernel,
                    request.tier,
                    request.seed,
                    model,
                    tried,
                    request.quirks,
                    lent,
                )
            return _propose(proposing, count, timer)

        self._prepared[kernel.id] = self._context.prefetcher.submit(work)
        self._runner.prepare(kernel)


def _propose(search: KernelSearch, count: int, timer: PhaseTimer) -> _Round:
    """Propose ``count`` candidates; the time that the search spends lowering them counts as BUILD, not SEARCH."""
    emit_s = search.emit_s
    with timer.timing(SessionPhase.SEARCH):
        candidates = search.propose(count)
    emit_s = search.emit_s - emit_s
    timer.add(SessionPhase.BUILD, emit_s)
    timer.add(SessionPhase.SEARCH, -emit_s)
    return _Round(search, candidates, search.exhausted)
