"""Measuring one device's best schedules on another, to see whether times and order carry over; nothing is tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from ..session.registration import device_info, own_session
from .stability import Contest, measure_records


@dataclass(frozen=True)
class FidelityRequest:
    """The ``top`` fastest schedules of the kernels ``workload_ids`` on ``source``, to be measured on ``device``.

    Each is measured ``rounds`` times. ``label`` tells circumstances apart that the device's key does not, such as a
    browser's flags.
    """

    source: tuple[str, Runtime]
    device: Device
    capture_key: str
    workload_ids: Sequence[str]
    top: int = 10
    rounds: int = 1
    label: str = ""


def measure_elsewhere(
    request: FidelityRequest, store: Store, report: Callable[[str, float], None], opener: OpenWorker
) -> int:
    """Measures as trials of a session of their own, which are never ranked; the session's id. SIGINT ends it.

    Raises:
        UsageError: the source has no records of these kernels.
        WgtuneError: a kernel is not stored in a form that the installed TVM reads.
        DeviceError: the device does not start, or stopped working.
    """
    key, runtime = request.source
    chosen = top_schedules(store, key, request.workload_ids, runtime, request.top)
    if not chosen:
        raise UsageError(
            f"there is nothing to measure: {store.name} has no records of these kernels on {key}",
            f"wgtune tune --device {key}",
        )
    return measure_records(
        Contest(chosen, request.rounds), request.device, _info(request, store), store, report, opener
    )


def _info(request: FidelityRequest, store: Store) -> SessionInfo:
    """A session like the source's last, on the other device."""
    key, runtime = request.source
    tier = tier_for(request.device, TIERS["default"])
    latest = next(kept.info for kept in store.sessions(device_key=key) if kept.info.runtime is runtime)
    return replace(
        own_session(latest, request.device),
        device=device_info(request.device),
        runtime=request.device.runtime,
        capture_key=request.capture_key,
        budget={"from": key, "top": request.top, "kernels": len(request.workload_ids), "rounds": request.rounds},
        reason=labelled(request.label),
        target=tier.target if isinstance(tier, NativeTier) else "",
    )
