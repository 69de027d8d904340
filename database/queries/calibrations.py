"""What devices were measured to do at most, by the sessions that did so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import String, cast, select

from ...support.enums import Runtime
from ..reader import Reader
from ..schema.rows import device, session


def latest_calibrations(reader: Reader) -> dict[tuple[str, Runtime], Mapping[str, float]]:
    """Return the latest calibration of each device that has one, by device key and runtime.

    Its names are those of `SessionInfo.calibration`: ``flops_per_s``, ``bytes_per_s`` and ``launch_s``. Of several
    databases the latest counts, too.
    """
    query = (
        select(device.c.key, session.c.runtime, session.c.started, session.c.calibration)
        .join_from(session, device)
        .where(cast(session.c.calibration, String) != "{}")
        .order_by(session.c.started, session.c.uid)
    )
    found: dict[tuple[str, Runtime], tuple[datetime, Mapping[str, float]]] = {}
    for layer in reader.layers:
        with layer.reading() as connection:
            for row in connection.execute(query):
                earlier = found.get((row.key, row.runtime))
                if earlier is None or earlier[0] <= row.started:
                    found[row.key, row.runtime] = row.started, row.calibration
    return {key: calibration for key, (_, calibration) in found.items()}


def launch_s(reader: Reader, device_key: str, runtime: Runtime = Runtime.WGPU) -> float | None:
    """Return the seconds that one more dispatch costs on a device; None where no session measured it."""
    return latest_calibrations(reader).get((device_key, runtime), {}).get("launch_s")
