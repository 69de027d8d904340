"""Fidelity: the best schedules of one device measured on another, to see whether times and order carry over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...database.queries.remeasured import top_schedules
from ...database.queries.shared_schedules import labelled
from ...database.schema.records import SessionInfo
from ...database.store import Store
from ...devices.device import Device
from ...devices.limits import TIERS
from ...devices.worker.factory import OpenWorker
from ...support.enums import Runtime
from ...support.errors import UsageError
from ..codegen.tvm_native import NativeTier, tier_for
from ..session.registration import device_info, repeated_session_info
from .remeasurement import Remeasurement, Report, run_remeasurement


@dataclass(frozen=True)
class FidelityRequest:
    """What to measure on another device.

    Attributes:
        source: key and runtime of the device whose schedules are measured.
        device: where they are measured.
        capture_key: the model that the session is stored for.
        workload_ids: the kernels.
        top: number of fastest schedules per kernel.
        rounds: how often each schedule is measured.
        label: tells apart what the device's key does not, such as a browser's flags.
    """

    source: tuple[str, Runtime]
    device: Device
    capture_key: str
    workload_ids: Sequence[str]
    top: int = 10
    rounds: int = 1
    label: str = ""


def measure_elsewhere(request: FidelityRequest, store: Store, report: Report, opener: OpenWorker) -> int:
    """Measure the source's fastest schedules on the other device and return the id of the session of these trials.

    These trials are never ranked. SIGINT ends the session; trials that ended before are committed.

    Raises:
        UsageError: the source has no records of these kernels.
        WgtuneError: a kernel is not stored in a form that the installed TVM reads.
        DeviceError: the device does not start, or stopped working.
    """
    key, runtime = request.source
    schedules = top_schedules(store, key, request.workload_ids, runtime, request.top)
    if not schedules:
        raise UsageError(
            f"there is nothing to measure: {store.name} has no records of these kernels on {key}",
            f"wgtune tune --device {key}",
        )
    plan = Remeasurement(request.device, _session_info(request, store), schedules, request.rounds)
    return run_remeasurement(plan, store, report, opener)


def _session_info(request: FidelityRequest, store: Store) -> SessionInfo:
    """Return the description of the new session, after the source's latest one."""
    key, runtime = request.source
    tier = tier_for(request.device, TIERS["default"])
    latest = next(kept.info for kept in store.sessions(device_key=key) if kept.info.runtime is runtime)
    return replace(
        repeated_session_info(latest, request.device),
        device=device_info(request.device),
        runtime=request.device.runtime,
        capture_key=request.capture_key,
        budget={"from": key, "top": request.top, "kernels": len(request.workload_ids), "rounds": request.rounds},
        reason=labelled(request.label),
        target=tier.target if isinstance(tier, NativeTier) else "",
    )
