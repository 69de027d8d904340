"""Liveness of sessions: host, boot and PID-namespace identity, process checks, and sessions that went silent.

A process of this host is asked for directly (`is_alive`). The process of another host cannot be asked: if it was
killed, its session would stay `running` for ever. Its signs of life in the database are its trials, and the leases that
it renews every few minutes. After `SILENT_S` without either, the session is closed as killed. Its leases expired long
before, so nobody waited for this. It can be undone: a tuner that only slept reopens its session with its next claim,
and the result of the trial that it was running is accepted once.
"""

from __future__ import annotations

import os
import platform
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

import psutil
from sqlalchemy import Connection, func, select, update

from .schema.records import SessionOutcome
from .schema.rows import lease, session, trial

SILENT_S = 24 * 3600.0
"""More than a night with the lid closed, and than any difference between hosts' clocks; trials end within minutes."""

CLOCK_SLACK_S = 2.0
"""Tolerance of start times: the boot time is known to the second, and clocks are adjusted."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_RETURNED = "it was taken for dead, and came back"


@cache
def host_name() -> str:
    """Return this machine's name and, on Linux, its boot and PID namespace: ``lab [1f0c93d2/4026531836]``.

    Machines, and containers of one machine, may share a name. None of them may take another's processes for dead only
    because it does not see them. The boot id tells machines apart, the namespace the containers of one machine.
    """
    try:
        boot = _BOOT.read_text(encoding="ascii").strip()[:8]
        namespace = os.readlink(_NAMESPACE).strip("pid:[]")
    except (OSError, ValueError):
        return platform.node()
    return f"{platform.node()[:200]} [{boot}/{namespace}]"


def is_alive(pid: int, since: datetime) -> bool:
    """Return whether process ``pid`` of this machine is the one that was running at the time ``since``.

    Process ids are reused, in a container within minutes. A process that started after ``since`` is another one.
    """
    try:
        process = psutil.Process(pid)
        return bool(
            process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since.timestamp() + CLOCK_SLACK_S
        )
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def silent_sessions(connection: Connection) -> dict[int, datetime]:
    """Return the running sessions without a sign of life for `SILENT_S`, with the time of the last one (UTC)."""
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
    """Reopen a session that was closed as killed. Its own process calls this, which proves that it is alive."""
    connection.execute(
        update(session)
        .where(session.c.id == session_id, session.c.outcome == SessionOutcome.KILLED)
        .values(outcome=SessionOutcome.RUNNING, ended=None, note=_RETURNED)
    )


def server_time(connection: Connection) -> datetime:
    """Return the database server's time; for SQLite, this machine's."""
    if connection.dialect.name != "postgresql":
        return datetime.now(timezone.utc)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now
