"""Stability: the best schedules of a device measured on that device again, to see whether their times hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...database.queries.remeasured import REASON, top_schedules
from ...database.schema.records import SessionInfo
from ...database.store import Store
from ...devices.device import Device
from ...devices.worker.factory import OpenWorker, open_worker
from ...support.errors import UsageError
from ..session.registration import repeated_session_info
from .remeasurement import Remeasurement, Report, run_remeasurement

ROUNDS = 24
"""Default number of rounds. On an idle machine it distinguishes schedules whose times differ by about 1 %."""


@dataclass(frozen=True)
class StabilityRequest:
    """What to measure again.

    Attributes:
        device: where the schedules were measured, and are measured again.
        capture_key: the model that the session is stored for.
        workload_ids: the kernels.
        top: number of fastest schedules per kernel.
        rounds: how often each schedule is measured.
        seed: of the order in which kernels and schedules are measured.
    """

    device: Device
    capture_key: str
    workload_ids: Sequence[str]
    top: int = 10
    rounds: int = ROUNDS
    seed: int = 0


def measure_again(request: StabilityRequest, store: Store, report: Report, opener: OpenWorker = open_worker) -> int:
    """Measure the device's fastest schedules again and return the id of the session that holds the trials.

    These trials are never ranked. SIGINT ends the session; trials that ended before are committed.

    Raises:
        UsageError: the device has no records of these kernels.
        WgtuneError: a kernel is not stored in a form that the installed TVM reads.
        DeviceError: the device does not start, or stopped working.
    """
    key, runtime = request.device.key, request.device.runtime
    schedules = top_schedules(store, key, request.workload_ids, runtime, request.top)
    if not schedules:
        raise UsageError(
            f"there is nothing to measure again: {store.name} has no records of these kernels on {key}",
            f"wgtune tune --device {key}",
        )
    plan = Remeasurement(request.device, _session_info(request, store), schedules, request.rounds, request.seed)
    return run_remeasurement(plan, store, report, opener)


def _session_info(request: StabilityRequest, store: Store) -> SessionInfo:
    """Return the description of the new session, after the device's latest one; for this model if there is one."""
    device = request.device
    sessions = store.sessions(device_key=device.key, capture_key=request.capture_key) or store.sessions(
        device_key=device.key
    )
    latest = next(one.info for one in sessions if one.info.runtime is device.runtime)
    return replace(
        repeated_session_info(latest, device),
        capture_key=request.capture_key,
        budget={"top": request.top, "kernels": len(request.workload_ids), "rounds": request.rounds},
        reason=REASON,
    )
