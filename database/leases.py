"""Leases: they divide a device's kernels among tuners that share a database, so that none is tuned twice.

A lease says that one session works on one workload, on its device and runtime, until a time that the session keeps
extending. A tuner that dies stops extending it. Once the lease has expired, the next claim takes the workload over.

On PostgreSQL a claim locks the row that it wants and skips rows that others are locking (``FOR UPDATE SKIP LOCKED``),
so that claims never wait for each other. On SQLite all writers take turns. Times are those of the database server's
clock, since the clocks of several hosts differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from sqlalchemy import Connection, Update, and_, bindparam, or_, select, update

from ..support.enums import Runtime, TrialState
from ..support.errors import DatabaseError
from .liveness import revive, server_time
from .schema.rows import lease, session, trial, workload
from .sql_helpers import insert_missing
from .store import Store

LEASE_S = 300.0
"""How long a lease lasts unless it is renewed: longer than the longest trial, which a worker's time limits bound."""

_NEVER = datetime(1970, 1, 1, tzinfo=timezone.utc)

_ROW = and_(
    lease.c.workload_id == bindparam("wanted"),
    lease.c.device_id == bindparam("device"),
    lease.c.runtime == bindparam("way"),
)
_FREE = (
    select(lease.c.session_id)
    .where(_ROW)
    .where(or_(lease.c.session_id.is_(None), lease.c.session_id == bindparam("me"), lease.c.until <= bindparam("now")))
    .with_for_update(skip_locked=True)
)
"""Locks the row unless another session holds it, or is about to."""
_TAKE = update(lease).where(_ROW).values(session_id=bindparam("me"), until=bindparam("expires"))


def claim(store: Store, session_id: int, workload_ids: Sequence[str], seconds: float = LEASE_S) -> str | None:
    """Claim the first of the workloads, in their order, that no other live session holds; None where all are held.

    A workload that the session holds already counts as free, and its lease is extended. Taking over an expired lease
    marks the trials that the earlier session left running on that workload `abandoned`; a result that arrives later is
    still accepted, once.

    Raises:
        DatabaseError: there is no such session, or it has ended; or there is no such workload. A session
            that was closed as killed because it was silent for long is reopened.
    """
    if not workload_ids:
        return None
    with store.writing() as connection:
        revive(connection, session_id)
        device_id, runtime = _session(store, connection, session_id)
        ids = _workload_ids(store, connection, workload_ids)
        now = server_time(connection)
        held = _held_by_others(connection, list(ids.values()), device_id, runtime, session_id, now)
        for digest in workload_ids:
            if ids[digest] in held:
                continue
            row = {"wanted": ids[digest], "device": device_id, "way": runtime, "me": session_id, "now": now}
            found = connection.execute(_FREE, row).first()
            if found is not None:
                break
        else:
            return None
        if found.session_id not in (None, session_id):
            _abandon(connection, found.session_id, ids[digest], now)
        connection.execute(_TAKE, row | {"expires": now + timedelta(seconds=seconds)})
        return digest


def renew(store: Store, session_id: int, workload_id: str, seconds: float = LEASE_S) -> bool:
    """Extend a lease. Return False where another session took it over.

    An expired lease that nobody took over is extended like any other.
    """
    with store.writing() as connection:
        until = server_time(connection) + timedelta(seconds=seconds)
        changed = connection.execute(_held(session_id, workload_id).values(until=until))
        return changed.rowcount > 0


def give_back(store: Store, session_id: int, workload_id: str) -> None:
    """End a lease, so that others need not wait; do nothing where the session no longer holds it."""
    with store.writing() as connection:
        connection.execute(_held(session_id, workload_id).values(session_id=None))


def _held(session_id: int, workload_id: str) -> Update:
    number = select(workload.c.id).where(workload.c.digest == workload_id).scalar_subquery()
    return update(lease).where(lease.c.session_id == session_id, lease.c.workload_id == number)


def _session(store: Store, connection: Connection, session_id: int) -> tuple[int, Runtime]:
    query = select(session.c.device_id, session.c.runtime, session.c.ended).where(session.c.id == session_id)
    found = connection.execute(query).first()
    if found is None or found.ended is not None:
        raise DatabaseError(f"{store.name}: session {session_id} {'has ended' if found else 'does not exist'}")
    return found.device_id, found.runtime


def _workload_ids(store: Store, connection: Connection, digests: Sequence[str]) -> dict[str, int]:
    query = select(workload.c.digest, workload.c.id).where(workload.c.digest.in_(digests))
    found = {row.digest: row.id for row in connection.execute(query)}
    for digest in digests:
        if digest not in found:
            raise DatabaseError(f"{store.name}: there is no workload {digest}")
    return found


def _held_by_others(
    connection: Connection, ids: Sequence[int], device_id: int, runtime: Runtime, me: int, now: datetime
) -> set[int]:
    """Return the workloads that other sessions hold, and insert the missing rows, so that they can be locked."""
    query = select(lease.c.workload_id, lease.c.session_id, lease.c.until).where(
        lease.c.device_id == device_id, lease.c.runtime == runtime, lease.c.workload_id.in_(ids)
    )
    known = {row.workload_id: row for row in connection.execute(query)}
    nobody = {"device_id": device_id, "runtime": runtime, "session_id": None, "until": _NEVER}
    # In one order, lest two wait for each other's rows.
    insert_missing(connection, lease, [{"workload_id": i, **nobody} for i in sorted(set(ids) - set(known))])
    return {i for i, row in known.items() if row.session_id not in (None, me) and row.until > now}


def _abandon(connection: Connection, session_id: int, workload_id: int, now: datetime) -> None:
    connection.execute(
        update(trial)
        .where(trial.c.session_id == session_id, trial.c.workload_id == workload_id)
        .where(trial.c.state == TrialState.RUNNING)
        .values(state=TrialState.ABANDONED, ended=now, error="the session's lease ran out while it was running")
    )
