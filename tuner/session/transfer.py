"""Schedules that others found, on related devices or by other programs: what a GPU starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice, zip_longest
from typing import Any

from ...database.queries.ranked_schedules import Offers
from ...database.queries.transfer_lookup import relatives
from ...database.reader import Reader
from ...database.schema.records import TrialKind
from ...devices.device import Device
from ...devices.limits import Tier
from ...devices.program import Requirements
from ..ir import Kernel
from .context import SessionContext
from .events import SessionPhase
from .phase_timer import PhaseTimer
from .prefetch import Pending
from .registration import device_info
from .trial import Attempt, stored_attempt
from .trial_runner import SessionTrials

_TOP = 3
"""Schedules that a kernel takes over from others: the nearest devices' best, and another program's."""


def untried_relatives(store: Reader, device: Device, tier: Tier, kernels: Sequence[Kernel]) -> dict[str, list[str]]:
    """Traces by kernel id, the most promising first, of what fits ``tier`` and wgtune has not tried on ``device`` yet.

    What another program measured on this very device comes first: nobody has verified it (`TrialState.UNVERIFIED`).
    """
    ids = [kernel.id for kernel in kernels]
    found = relatives(store, device_info(device), ids, device.runtime, fits=fits_tier(tier), top=_TOP)
    foreign = Offers(store, device.key, device.runtime, unverified=True)
    measured = set(foreign.workloads())
    untried: dict[str, list[str]] = {}
    for kernel_id in ids:
        choices = found.get(kernel_id, [])
        if not choices and kernel_id not in measured:
            continue
        tried = store.tried(device.key, kernel_id, device.runtime)
        known = {trial.trace for trial in tried} | {trial.program_digest for trial in tried}
        unverified = (offer.trace for offer in foreign.of(kernel_id) if offer.trace not in known)
        traces = list(islice(unverified, _TOP)) if kernel_id in measured else []
        traces += (
            one.record.trace
            for one in choices
            # A relative whose baseline won has nothing to lend: there is one here.
            if one.record.kind is not TrialKind.BASELINE and not known & {one.record.trace, one.record.program_digest}
        )
        if traces:
            untried[kernel_id] = list(dict.fromkeys(traces))
    return untried


def fits_tier(tier: Tier) -> Callable[[Mapping[str, Any]], bool]:
    """Whether what a record needs is within ``tier``, for `wgtune.database.reader.Reader.best`."""

    def fits(needs: Mapping[str, Any]) -> bool:
        try:
            return not tier.violations(_requirements(needs))
        except (KeyError, TypeError, ValueError):  # a record from a file that says something else: it fits nowhere
            return False

    return fits


def _requirements(needs: Mapping[str, Any]) -> Requirements:
    """Raises KeyError, TypeError or ValueError where the JSON values are no requirements of a program's."""
    x, y, z = map(_whole, needs["workgroup_size"])
    return Requirements(
        threads=_whole(needs["threads"]),
        workgroup_size=(x, y, z),
        workgroup_bytes=_whole(needs["workgroup_bytes"]),
        storage_buffers=_whole(needs["storage_buffers"]),
        binding_bytes=_whole(needs["binding_bytes"]),
        features=tuple(needs["features"]),
    )


def _whole(value: Any) -> int:
    # NaN exceeds no limit.
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


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


def _lower(kernel: Kernel, trace: str, tier: Tier, stopwatch: PhaseTimer) -> Attempt:
    with stopwatch.timing(SessionPhase.BUILD):
        return stored_attempt(kernel, trace, tier, TrialKind.TRANSFER)
