"""Where a report's numbers come from: device, drivers, toolchain, dates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..database.reader import Reader
from ..database.schema.records import UNNAMED_DRIVER, DeviceInfo, Record
from ..support.enums import Runtime
from ..support.errors import UsageError

SOFTWARE_WARNING = "This is a software adapter: the CPU ran the shaders. These times say nothing about a GPU."


@dataclass(frozen=True)
class Provenance:
    """The device, and what the records used have in common or not.

    ``toolchains`` are words as ``package version``; ``first`` and ``last`` say when the records ended.
    """

    device: DeviceInfo
    runtime: Runtime
    drivers: list[str]
    toolchains: list[str]
    tiers: list[str]
    sessions: int
    first: datetime | None
    last: datetime | None


def provenance(store: Reader, device_key: str, runtime: Runtime, records: Iterable[Record]) -> Provenance:
    """Return the provenance of ``records`` of one device. Raises UsageError for an unknown device."""
    device = next((device for device in store.devices() if device.key == device_key), None)
    if device is None:
        raise UsageError(f"there is no device {device_key!r} in {store.name}", "wgtune db info lists what there is")
    used = list(records)
    wanted = {record.session_id for record in used}
    sessions = [kept.info for kept in store.sessions(device_key=device_key) if kept.session_id in wanted]
    moments = [record.created for record in used]
    return Provenance(
        device=device,
        runtime=runtime,
        drivers=sorted({info.driver or UNNAMED_DRIVER for info in sessions}),
        toolchains=sorted({_words(dict(info.toolchain)) for info in sessions}),
        tiers=sorted({info.tier for info in sessions}),
        sessions=len(sessions),
        first=min(moments, default=None),
        last=max(moments, default=None),
    )


def _words(toolchain: dict[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in sorted(toolchain.items()))
