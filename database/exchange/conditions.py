"""Under what conditions times were taken: those of cold caches and of warm ones are never ranked together."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from ...support.errors import DatabaseError
from ..schema.rows import device, session


def check_conditions(connection: Connection, name: str) -> None:
    """Raises DatabaseError where a device's times were taken with warm caches in some sessions, with cold in others."""
    mixed = connection.execute(
        select(device.c.key)
        .join_from(session, device)
        .group_by(device.c.key, session.c.runtime)
        .having(func.count(session.c.cache.distinct()) > 1)
        .order_by(device.c.key)
        .limit(1)
    ).scalar()
    if mixed is not None:
        raise DatabaseError(
            f"{name} would hold times of {mixed} with cold caches beside times with warm ones, which do not compare",
            "keep databases of `wgtune tune --cache cold` apart from the others",
        )
