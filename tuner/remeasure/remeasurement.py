"""Measures stored schedules on a device in rounds, as trials of a session of their own that are never ranked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...database.schema.records import Record, SessionInfo, SessionOutcome, TrialKind
from ...database.store import Store
from ...devices.device import Device
from ...devices.limits import TIERS, find_tier
from ...devices.measure.job import Timeouts
from ...devices.worker.factory import OpenWorker
from ...support.signals import Interrupted, Interrupts
from ..codegen.tvm_native import tier_for
from ..ir import Kernel
from ..reference.reference import NonFiniteReferenceError
from ..session.context import TrialContext
from ..session.events import Event
from ..session.phase_timer import PhaseTimer
from ..session.prefetch import Prefetcher
from ..session.trial import Attempt, stored_attempt, stored_kernel
from ..session.trial_runner import TrialRecorder

Report = Callable[[str, float], None]
"""Told before each trial: the kernel's name, and the fraction of the work that is done, from 0 to 1."""


@dataclass(frozen=True)
class Remeasurement:
    """Stored schedules to be measured again.

    Attributes:
        device: where they are measured.
        session: the database's description of the session that their trials belong to.
        schedules: records by kernel id.
        rounds: how often each schedule is measured.
        order_seed: seed of the order in which kernels and schedules are measured.
    """

    device: Device
    session: SessionInfo
    schedules: Mapping[str, Sequence[Record]]
    rounds: int = 1
    order_seed: int = 0


def run_remeasurement(plan: Remeasurement, store: Store, report: Report, opener: OpenWorker) -> int:
    """Measure the schedules of ``plan`` as check trials and return the id of their session.

    SIGINT ends the session; trials that ended before are committed.

    Raises:
        WgtuneError: a kernel is not stored in a form that the installed TVM reads.
        DeviceError: the device does not start, or stopped working.
    """
    session_id = store.begin_session(plan.session)
    outcome, note = SessionOutcome.FAILED, ""
    try:
        with Interrupts() as interrupts:
            _run_rounds(plan, session_id, store, interrupts, report, opener)
            outcome = SessionOutcome.INTERRUPTED if interrupts.requested else SessionOutcome.COMPLETED
    except BaseException as error:
        note = f"{type(error).__name__}: {error}"
        raise
    finally:
        store.end_session(session_id, outcome, note)
    return session_id


def _run_rounds(
    plan: Remeasurement,
    session_id: int,
    store: Store,
    interrupts: Interrupts,
    report: Report,
    opener: OpenWorker,
) -> None:
    """Measure each schedule once in every round.

    The schedules of one kernel follow each other, so that a disturbance of the machine concerns all of them. Their
    order is random, because a disturbance changes with time. Each round has a worker process of its own if the worker
    has any: the addresses of code and buffers change a latency by some per cent, for one program in several hundreds by
    a tenth and more (T. Mytkowicz et al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009),
    and stay the same until the process ends.
    """
    workloads = store.workloads(set(plan.schedules))
    kernels = {workload_id: stored_kernel(workload) for workload_id, workload in workloads.items()}
    entries = [
        (kernels[workload_id], _attempts(kernels[workload_id], records, plan.device))
        for workload_id, records in plan.schedules.items()
    ]
    total, done = plan.rounds * sum(len(attempts) for _, attempts in entries), 0
    order = random.Random(plan.order_seed)
    worker = opener(plan.device, Timeouts())
    try:
        with interrupts.cutting_short():
            peaks = worker.calibrate()
        timer = PhaseTimer()
        context = TrialContext(
            store=store,
            listener=_NullListener(),
            interrupts=interrupts,
            timer=timer,
            prefetcher=Prefetcher(timer, overlapping=False),
            seed=plan.session.seed,
            cache=plan.session.cache,
        )
        recorder = TrialRecorder(context, session_id, worker, peaks)
        for number in range(plan.rounds):
            if number:
                worker.close()  # the next measurement starts a new process
            for kernel, attempts in order.sample(entries, len(entries)):
                for attempt in order.sample(attempts, len(attempts)):
                    if interrupts.requested:
                        return
                    report(kernel.name, done / total)
                    # The kernel had a reference when the record was made. Without one nothing can be verified.
                    with suppress(NonFiniteReferenceError):
                        recorder.measure(kernel, attempt)
                    done += 1
    except Interrupted:
        return
    finally:
        worker.close()


def _attempts(kernel: Kernel, records: Sequence[Record], device: Device) -> list[Attempt]:
    """Lower the records' schedules again, for ``device``."""
    return [
        stored_attempt(
            kernel,
            record.trace,
            tier_for(device, find_tier(record.tier) if record.tier in TIERS else TIERS["default"]),
            TrialKind.CHECK,
        )
        for record in records
    ]


class _NullListener:
    def on(self, event: Event) -> None:
        """Ignore ``event``: callers are told of progress by `Report`."""
