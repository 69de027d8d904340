"""Measuring the best schedules of a device once more, to see whether what was measured holds; nothing is tuned."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..database.comparisons import top_schedules
from ..database.records import Record, SessionInfo, SessionOutcome, TrialKind
from ..database.store import Store
from ..devices.device import Device
from ..devices.job import Timeouts
from ..devices.limits import TIERS, find_tier
from ..devices.opening import OpenWorker, open_worker
from ..errors import UsageError
from .events import Event
from .interrupts import Interrupted, Interrupts
from .native import tier_for
from .reference import CaseError
from .registration import own_session
from .stopwatch import Stopwatch
from .stored import stored_attempt, stored_kernel
from .trials import Trials

REASON = "stability"
"""What such sessions are kept under."""


@dataclass(frozen=True)
class StabilityRequest:
    """The ``top`` fastest schedules of each of the kernels ``workload_ids`` on ``device``, in an order from ``seed``.

    ``capture_key`` is the model that they are looked at for.
    """

    device: Device
    capture_key: str
    workload_ids: Sequence[str]
    top: int = 10
    seed: int = 0


def measure_again(
    request: StabilityRequest,
    store: Store,
    report: Callable[[str, float], None],
    opener: OpenWorker = open_worker,
) -> int:
    """Measures the schedules as trials of a session of their own, which are never ranked; the session's id.

    Neighbours in rank are not neighbours in time: what changes meanwhile must not look like order. SIGINT ends the
    session after what is done.

    Raises:
        UsageError: the device has no records of these kernels.
        WgtuneError: a kernel is not stored in a form that the installed TVM reads.
        DeviceError: the device does not start, or stopped working.
    """
    key, runtime = request.device.key, request.device.runtime
    chosen = top_schedules(store, key, request.workload_ids, runtime, request.top)
    queue = [record for records in chosen.values() for record in records]
    if not queue:
        raise UsageError(
            f"there is nothing to measure again: {store.name} has no records of these kernels on {key}",
            f"wgtune tune --device {key}",
        )
    random.Random(request.seed).shuffle(queue)
    info = _info(request, store)
    session = store.begin_session(info)
    outcome, note = SessionOutcome.FAILED, ""
    try:
        with Interrupts() as interrupts:
            measure_records(queue, request.device, info, session, store, interrupts, report, opener)
            outcome = SessionOutcome.INTERRUPTED if interrupts.requested else SessionOutcome.COMPLETED
    except BaseException as error:
        note = f"{type(error).__name__}: {error}"
        raise
    finally:
        store.end_session(session, outcome, note)
    return session


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
        budget={"top": request.top, "kernels": len(request.workload_ids)},
        reason=REASON,
    )


def measure_records(
    queue: Sequence[Record],
    device: Device,
    info: SessionInfo,
    session: int,
    store: Store,
    interrupts: Interrupts,
    report: Callable[[str, float], None],
    opener: OpenWorker,
) -> None:
    """Measures the schedules of ``queue``, in its order, on ``device``, as checks of ``session``, which is ``info``."""
    infos = store.workloads({record.workload_id for record in queue})
    kernels = {identity: stored_kernel(workload) for identity, workload in infos.items()}
    worker = opener(device, Timeouts())
    try:
        with interrupts.cutting_short():
            peaks = worker.calibrate()
        trials = Trials(store, session, worker, peaks, info.seed, Stopwatch(), interrupts, _Unwatched(), info.cache)
        for done, record in enumerate(queue):
            if interrupts.requested:
                return
            kernel = kernels[record.workload_id]
            report(kernel.name, done / len(queue))
            tier = tier_for(device, find_tier(record.tier) if record.tier in TIERS else TIERS["default"])
            try:
                trials.run(kernel, stored_attempt(kernel, record.trace, tier, TrialKind.CHECK), None)
            except CaseError:  # it had a reference once; without one it cannot be compared
                continue
    except Interrupted:
        return
    finally:
        worker.close()


class _Unwatched:
    def on(self, event: Event) -> None:
        """Takes no note: the caller hears of each trial."""
