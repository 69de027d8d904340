"""Known schedules are tried before the search begins: the device's own, those of related devices and other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, zip_longest

from ...database.queries.ranked_schedules import RankedSchedules
from ...database.queries.transfer_lookup import related_schedules
from ...database.reader import Reader
from ...database.schema.records import Record, TrialKind
from ...devices.device import Device
from ...devices.limits import Tier
from ...devices.wgsl_loops import surely_exceeds
from ..ir import Kernel
from .context import SessionContext
from .events import SessionPhase
from .phase_timer import PhaseTimer
from .prefetch import Prefetched
from .registration import device_info
from .trial import Attempt, stored_attempt
from .trial_runner import TrialRunner

_TOP = 3
"""Schedules that a kernel takes over from related devices, and from another program on the same device."""

_AGAIN = 8
"""The device's own schedules of a kernel that one session measures again."""


def outdated_records(context: SessionContext) -> dict[str, Record]:
    """Return the kernels' best records on this device that are of other programs than their schedules become today."""
    request, kernels = context.request, context.kernel_states.kernels
    best = context.store.best(request.device.key, kernels, request.device.runtime, fits=request.tier.fits)
    return {key: record for key, record in best.items() if _today(context, record) is not None}


def verify_again(context: SessionContext, runner: TrialRunner, outdated: Mapping[str, Record]) -> None:
    """Measure the schedules of `outdated_records` again, kernels with the longest time per image first.

    A kernel's other schedules follow, the fastest first, until its best record is of today's program. What was measured
    before is replaced in rankings. A kernel that another tuner holds is left to that tuner.

    Raises:
        Interrupted: the user asked to stop.
        DeviceError: the device does not work any more.
    """
    request, states = context.request, context.kernel_states
    for progress in states.by_time():
        if progress.id not in outdated:
            continue
        with context.leases.hold_first([progress.id]) as leased:
            again: set[int] = set()
            record: Record | None = outdated[progress.id]
            while leased is not None and record is not None and len(again) < _AGAIN:
                if context.should_stop:
                    return
                if progress.exhausted or not context.leases.renew(progress.id):
                    break
                attempt = _today(context, record)
                if attempt is None or record.trial_id in again:
                    break
                again.add(record.trial_id)
                # The baseline of this session may have been that very schedule.
                known = {(trial.trace, trial.program_digest) for trial in states.tried(progress.id)}
                if attempt.program is None or (attempt.trace, attempt.program.digest) not in known:
                    runner.measure_again(states.kernels[progress.id], attempt)
                best = context.store.best(
                    request.device.key, [progress.id], request.device.runtime, fits=request.tier.fits
                )
                record = best.get(progress.id)


def _today(context: SessionContext, record: Record) -> Attempt | None:
    """Return a record's schedule as it is lowered today, None if that is the program that was measured."""
    # An untuned schedule of an older version is no baseline any more.
    kind = TrialKind.TRANSFER if record.kind is TrialKind.BASELINE else record.kind
    kernel, tier = context.kernel_states.kernels[record.workload_id], context.request.tier

    def lower(timer: PhaseTimer) -> Attempt:
        with timer.timing(SessionPhase.BUILD):
            return replace(stored_attempt(kernel, record.trace, tier, kind), repeat=True)

    attempt = context.prefetcher.run(lower)
    current = attempt.program is not None and attempt.program.digest == record.program_digest
    return None if current else attempt


def transfer_candidates(store: Reader, device: Device, tier: Tier, kernels: Sequence[Kernel]) -> dict[str, list[str]]:
    """Return the traces worth a transfer trial by kernel id, the most promising first.

    These fit ``tier`` and have not been tried on ``device`` yet. What another program measured on this very device
    comes first (trials in state `TrialState.UNVERIFIED`), then the best schedules of the nearest devices.
    """
    ids = [kernel.id for kernel in kernels]
    related = related_schedules(store, device_info(device), ids, device.runtime, fits=tier.fits, top=_TOP)
    unverified = RankedSchedules(store, device.key, device.runtime, unverified=True)
    with_unverified = set(unverified.workloads())
    candidates: dict[str, list[str]] = {}
    for kernel_id in ids:
        records = related.get(kernel_id, [])
        if not records and kernel_id not in with_unverified:
            continue
        tried = store.tried(device.key, kernel_id, device.runtime)
        known = {trial.trace for trial in tried} | {trial.program_digest for trial in tried}
        untried = (offer.trace for offer in unverified.of(kernel_id) if offer.trace not in known)
        traces = list(islice(untried, _TOP)) if kernel_id in with_unverified else []
        traces += (
            one.record.trace
            for one in records
            # If a baseline is the fastest there, it has nothing to transfer: this device gets its own baseline.
            if one.record.kind is not TrialKind.BASELINE and not known & {one.record.trace, one.record.program_digest}
        )
        if traces:
            candidates[kernel_id] = list(dict.fromkeys(traces))
    return candidates


def run_transfers(context: SessionContext, runner: TrialRunner, candidates: Mapping[str, Sequence[str]]) -> None:
    """Run a trial of each trace that `transfer_candidates` returned, kernels with the longest time per image first.

    While one kernel's traces are measured, the next kernel's are lowered. A kernel that another tuner holds is left to
    that tuner. No trial is made of a program whose loops a quirk of the device's driver surely ends too soon.

    Raises:
        Interrupted: the user asked to stop.
        DeviceError: the device does not work any more.
    """
    states, tier = context.kernel_states, context.request.tier
    most = context.request.quirks.max_thread_iterations
    due = [progress for progress in states.by_time() if progress.id in candidates and not progress.exhausted]
    prepared: dict[str, list[Prefetched[Attempt]]] = {}
    for number, progress in enumerate(due):
        with context.leases.hold_first([progress.id]) as leased:
            if leased is None:
                continue
            for following in due[number : number + 2]:
                if following.id not in prepared:
                    kernel = states.kernels[following.id]
                    lowerings = [partial(_lower, kernel, trace, tier) for trace in candidates[following.id]]
                    prepared[following.id] = [context.prefetcher.submit(lowering) for lowering in lowerings]
            known = {trial.program_digest for trial in states.tried(progress.id)}
            attempts = prepared.pop(progress.id)
            for pending, next_pending in zip_longest(attempts, attempts[1:]):
                if context.should_stop:
                    return
                if progress.exhausted or not context.leases.renew(progress.id):
                    break
                attempt = pending.result()
                program = attempt.program
                if program is None or not (program.digest in known or surely_exceeds(program, most)):
                    upcoming = next_pending.peek() if next_pending else None
                    runner.run(progress, attempt, upcoming.program if upcoming else None)


def _lower(kernel: Kernel, trace: str, tier: Tier, timer: PhaseTimer) -> Attempt:
    with timer.timing(SessionPhase.BUILD):
        return stored_attempt(kernel, trace, tier, TrialKind.TRANSFER)
