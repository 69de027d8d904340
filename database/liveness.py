"""Sessions whose process nobody can ask: how long they have been silent, and what becomes of them.

A process of this host is asked for directly (`processes.is_alive`). One elsewhere that was killed leaves a session that
would be running for ever. What others see of a live one is its trials, and the leases that it puts off every few
minutes. After `SILENT_S` without either it is closed as killed. Its leases ran out long before, so nobody waited for
that; it is bookkeeping, and can be taken back: a tuner that was only asleep reopens its session with its next claim,
and the result of the trial that it was at is accepted, once.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from sqlalchemy import Connection, func, select, update

from .schema.records import SessionOutcome
from .schema.rows import lease, session, trial

SILENT_S = 24 * 3600.0
"""More than a night with the lid closed, and than any difference between hosts' clocks; trials end within minutes."""

_RETURNED = "it was taken for dead, and came back"


def silent_sessions(connection: Connection) -> dict[int, datetime]:
    """The running sessions without a sign of life for `SILENT_S`, with the last one each gave (UTC)."""
    now = server_time(connection)
    running = select(session.c.id, session.c.started).where(session.c.outcome == SessionOutcome.RUNNING)
    found = {}
    for row in connection.execute(running).all():
        last = select(trial.c.started, trial.c.ended).where(trial.c.session_id == row.id)
        moments = [row.started]
        moments += connection.execute(last.order_by(trial.c.number.desc()).limit(1)).first() or ()
        moments += connection.execute(select(lease.c.until).where(lease.c.session_id == row.id)).scalars()
        latest = max(moment for moment in moments if moment is not None)
        if latest < now - timedelta(seconds=SILENT_S):
            found[row.id] = latest
    return found


def revive(connection: Connection, session_id: int) -> None:
    """Reopens a session that was taken for dead: its own process, which calls this, knows better."""
    connection.execute(
        update(session)
        .where(session.c.id == session_id, session.c.outcome == SessionOutcome.KILLED)
        .values(outcome=SessionOutcome.RUNNING, ended=None, note=_RETURNED)
    )


def server_time(connection: Connection) -> datetime:
    """The database server's time; SQLite's is this machine's."""
    if connection.dialect.name != "postgresql":
        return datetime.now(timezone.utc)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now
