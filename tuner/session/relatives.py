"""Trials of what related devices found best, so that search starts from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest

from ...database.schema.records import TrialKind
from ...devices.limits import Tier
from ..ir import Kernel
from .context import SessionContext
from .events import Phase
from .phase_timer import Stopwatch
from .prefetch import Pending
from .session_trials import SessionTrials
from .stored_kernel import stored_attempt
from .trials import Attempt


def try_relatives(context: SessionContext, trials: SessionTrials, traces: Mapping[str, Sequence[str]]) -> None:
    """Tries ``traces`` by kernel id, as `transfer.untried_relatives` gives them; the heaviest first.

    While a kernel's are measured, the next kernel's are lowered. Raises as `SessionTrials.run` does.
    """
    standing, tier = context.standing, context.request.tier
    due = [progress for progress in standing.by_weight() if progress.id in traces and not progress.exhausted]
    prepared: dict[str, list[Pending[Attempt]]] = {}
    for number, progress in enumerate(due):
        # Whoever holds the kernel tries them.
        with context.sharing.holding([progress.id]) as mine:
            if mine is None:
                continue
            for soon in due[number : number + 2]:
                if soon.id not in prepared:
                    kernel = standing.kernels[soon.id]
                    lowered = [partial(_lower, kernel, trace, tier) for trace in traces[soon.id]]
                    prepared[soon.id] = [context.ahead.prepare(work) for work in lowered]
            known = {trial.program_digest for trial in standing.tried(standing.kernels[progress.id])}
            own = prepared.pop(progress.id)
            for pending, following in zip_longest(own, own[1:]):
                if context.over:
                    return
                if progress.exhausted or not context.sharing.keep(progress.id):
                    break
                attempt = pending.result()
                if attempt.program is None or attempt.program.digest not in known:
                    upcoming = following.glance() if following else None
                    trials.run(progress, attempt, upcoming.program if upcoming else None)


def _lower(kernel: Kernel, trace: str, tier: Tier, stopwatch: Stopwatch) -> Attempt:
    with stopwatch.timing(Phase.BUILD):
        return stored_attempt(kernel, trace, tier, TrialKind.TRANSFER)
