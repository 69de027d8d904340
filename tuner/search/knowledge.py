"""What the database knows that helps to search on a device: trials of other devices and kernels, as examples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...database.queries.taught_trials import TaughtTrial, featured_trials, lent_trials
from ...database.reader import Reader
from ...database.schema.records import SessionInfo
from ...devices.device import Device
from ...devices.quirks import combined, known_quirks, quirks_of
from .cost_model import Example
from .features import VERSION, Features, device_features

_EXAMPLES = 3000
"""Most trials of the session's kernels, and of all others, from which a cost model starts: half a second to learn."""

_LENT = 256
"""Most schedules of a kernel that other devices lend, the fastest of each: a quarter of a millisecond to read one."""


@dataclass(frozen=True)
class Lent:
    """What another device's trial of a kernel tells; ``known`` if it is among the `known_examples`."""

    trace: str
    example: Example
    known: bool


def features_of(device: Device, calibration: Mapping[str, float]) -> Features:
    """Return the features of a device of this machine; ``calibration`` by the names of `Peaks`."""
    return device_features(device.limits, device.software, quirks_of(device), calibration)


def known_examples(reader: Reader, device: Device, kernel_ids: Collection[str], *, others: bool) -> list[Example]:
    """Return what trials with stored features teach, this device's of the kernels left out: a search reads those.

    Args:
        reader: the database.
        device: that is tuned. Software adapters learn nothing from GPUs, nor GPUs from them.
        kernel_ids: of the session. Their trials come first.
        others: whether other devices' trials count.
    """
    found = []
    for within in (True, False):
        trials = featured_trials(
            reader,
            VERSION,
            software=device.software,
            runtime=device.runtime,
            workload_ids=kernel_ids,
            within=within,
            limit=_EXAMPLES,
        )
        for trial in trials:
            own = (trial.session.device.key, trial.session.runtime) == (device.key, device.runtime)
            if trial.features is not None and (others or own) and not (own and within):
                found.append(_example(trial, trial.features))
    return found


def lent_schedules(reader: Reader, device: Device, kernel_id: str) -> list[Lent]:
    """Return other devices' fastest schedules of a kernel."""
    trials = lent_trials(
        reader,
        VERSION,
        software=device.software,
        runtime=device.runtime,
        workload_id=kernel_id,
        device_key=device.key,
        limit=_LENT,
    )
    return [Lent(one.trace, _example(one, one.features or {}), one.features is not None) for one in trials]


def _example(trial: TaughtTrial, features: Mapping[str, float]) -> Example:
    session = trial.session
    group = (trial.workload_id, session.device.key, session.runtime.value)
    return Example(group, _device_features(session), features, trial.latency_s)


def _device_features(session: SessionInfo) -> Features:
    device = session.device
    limits: Any = session.adapter.get("limits")
    quirks = combined(known_quirks(device.backend, device.model, session.driver))
    return device_features(limits if isinstance(limits, dict) else {}, device.software, quirks, session.calibration)
