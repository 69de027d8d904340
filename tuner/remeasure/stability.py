"""Measuring the best schedules of a device once more, to see whether what was measured holds; nothing is tuned."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ...database.queries.remeasured import REASON, top_schedules
from ...database.schema.records import Record, SessionInfo, SessionOutcome, TrialKind
from ...database.store import Store
from ...devices.device import Device
from ...devices.limits import TIERS, find_tier
from ...devices.measure.job import Timeouts
from ...devices.worker.factory import OpenWorker, open_worker
from ...support.errors import UsageError
from ...support.signals import Interrupted, Interrupts
from ..codegen.tvm_native import tier_for
from ..ir import Kernel
from ..reference.reference import NonFiniteReferenceError
from ..session.events import Event
from ..session.phase_timer import PhaseTimer
from ..session.registration import own_session
from ..session.trial import Attempt, stored_attempt, stored_kernel
from ..session.trial_runner import Trials

ROUNDS = 24
"""Rounds by default: so many tell schedules apart that differ by about one per cent, on a quiet machine."""


@dataclass(frozen=True)
class StabilityRequest:
    """The ``top`` fastest schedules of each of the kernels ``workload_ids`` on ``device``, in an order from ``seed``.

    Each is measured ``rounds`` times. ``capture_key`` is the model that they are looked at for.
    """

    device: Device
    capture_key: str
    workload_ids: Sequence[str]
    top: int = 10
    rounds: int = ROUNDS
    seed: int = 0


def measure_again(
    request: StabilityRequest,
    store: Store,
    report: Callable[[str, float], None],
    opener: OpenWorker = open_worker,
) -> int:
    """Measures the schedules as trials of a session of their own, which are never ranked; the session's id.

    SIGINT ends the session after what is done.

    Raises:
        UsageError: the device has no records of these kernels.
        WgtuneError: a kernel is not stored in a form that the installed TVM reads.
        DeviceError: the device does not start, or stopped working.
    """
    key, runtime = request.device.key, request.device.runtime
    chosen = top_schedules(store, key, request.workload_ids, runtime, request.top)
    if not chosen:
        raise UsageError(
            f"there is nothing to measure again: {store.name} has no records of these kernels on {key}",
            f"wgtune tune --device {key}",
        )
    contest = Contest(chosen, request.rounds, request.seed)
    return measure_records(contest, request.device, _info(request, store), store, report, opener)


def _info(request: StabilityRequest, store: Store) -> SessionInfo:
    """A session like the one that came last on the device, by this process and on the device as it is now."""
    device = request.device
    kept = store.sessions(device_key=device.key, capture_key=request.capture_key) or store.sessions(
        device_key=device.key
    )
    latest = next(one.info for one in kept if one.info.runtime is device.runtime)
    return replace(
        own_session(latest, device),
        capture_key=request.capture_key,
        budget={"top": request.top, "kernels": len(request.workload_ids), "rounds": request.rounds},
        reason=REASON,
    )


@dataclass(frozen=True)
class Contest:
    """Schedules by kernel, each to be measured ``rounds`` times, in an order from ``seed``."""

    schedules: Mapping[str, Sequence[Record]]
    rounds: int = 1
    seed: int = 0


def measure_records(
    contest: Contest,
    device: Device,
    info: SessionInfo,
    store: Store,
    report: Callable[[str, float], None],
    opener: OpenWorker,
) -> int:
    """Measures the schedules of ``contest`` on ``device`` as checks of a session that is ``info``; the session's id.

    SIGINT ends the session after what is done. Raises as `measure_again` does, but for records that there are.
    """
    session = store.begin_session(info)
    outcome, note = SessionOutcome.FAILED, ""
    try:
        with Interrupts() as interrupts:
            _measure(contest, device, info, session, store, interrupts, report, opener)
            outcome = SessionOutcome.INTERRUPTED if interrupts.requested else SessionOutcome.COMPLETED
    except BaseException as error:
        note = f"{type(error).__name__}: {error}"
        raise
    finally:
        store.end_session(session, outcome, note)
    return session


def _measure(
    contest: Contest,
    device: Device,
    info: SessionInfo,
    session: int,
    store: Store,
    interrupts: Interrupts,
    report: Callable[[str, float], None],
    opener: OpenWorker,
) -> None:
    """Measures the schedules of ``contest`` as checks of ``session``.

    Each once in every round. The schedules of one kernel follow each other, for what else the machine does meanwhile to
    concern all of them; the first is not always the first, because what goes on changes with time. A round has a
    process of its own where the worker has any: where code and buffers happen to lie in memory decides over some per
    cent of a time, and for one program in some hundreds over a tenth and more (T. Mytkowicz et al., "Producing wrong
    data without doing anything obviously wrong!", ASPLOS 2009), and stays so until the process ends.
    """
    infos = store.workloads(set(contest.schedules))
    kernels = {identity: stored_kernel(workload) for identity, workload in infos.items()}
    entries = [
        (kernels[identity], _attempts(kernels[identity], records, device))
        for identity, records in contest.schedules.items()
    ]
    total, done = contest.rounds * sum(len(attempts) for _, attempts in entries), 0
    order = random.Random(contest.seed)
    worker = opener(device, Timeouts())
    try:
        with interrupts.cutting_short():
            peaks = worker.calibrate()
        trials = Trials(store, session, worker, peaks, info.seed, PhaseTimer(), interrupts, _Unwatched(), info.cache)
        for number in range(contest.rounds):
            if number:
                worker.close()
            for kernel, attempts in order.sample(entries, len(entries)):
                for attempt in order.sample(attempts, len(attempts)):
                    if interrupts.requested:
                        return
                    report(kernel.name, done / total)
                    with suppress(
                        NonFiniteReferenceError
                    ):  # it had a reference once; without one it cannot be compared
                        trials.run(kernel, attempt, None)
                    done += 1
    except Interrupted:
        return
    finally:
        worker.close()


def _attempts(kernel: Kernel, records: Sequence[Record], device: Device) -> list[Attempt]:
    """The records' schedules, lowered once more for ``device``."""
    return [
        stored_attempt(
            kernel,
            record.trace,
            tier_for(device, find_tier(record.tier) if record.tier in TIERS else TIERS["default"]),
            TrialKind.CHECK,
        )
        for record in records
    ]


class _Unwatched:
    def on(self, event: Event) -> None:
        """Takes no note: the caller hears of each trial."""
