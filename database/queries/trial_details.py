"""Every stored value of one session or one trial."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from ...support.errors import UsageError
from ..schema.records import SessionRecord
from ..schema.rows import SESSIONS, replay, schedule, session, to_session, trial, workload
from ..sql_reader import SqlReader

_KEYS = frozenset({"id", "session_id", "workload_id", "device_id", "schedule_id"})


_SHORTEST_UID = 6
_LONGEST_NUMBER = 18
"""Digits of a session's number at most; a uid has 32."""


def session_number(store: SqlReader, wanted: str) -> int:
    """Return the number of a session here, given that number, or the session's uid or the beginning of it.

    Raises:
        UsageError: there is no such session, or the uids of several begin so.
    """
    is_number = wanted.isascii() and wanted.isdecimal() and len(wanted) <= _LONGEST_NUMBER
    by_number = select(session.c.id).where(session.c.id == (int(wanted) if is_number else None))
    by_uid = select(session.c.id).where(session.c.uid.startswith(wanted.lower(), autoescape=True)).limit(2)
    with store.reading() as connection:
        found = connection.execute(by_number).scalars().all()
        if not found and len(wanted) >= _SHORTEST_UID:
            found = connection.execute(by_uid).scalars().all()
    if len(found) == 1:
        return int(found[0])
    raise UsageError(
        f"{store.name} has {'several sessions' if found else 'no session'} {wanted!r}",
        "`wgtune db info` counts sessions, `wgtune report bundle` prints the uids of those that a bundle comes from",
    )


def show_session(store: SqlReader, session_id: int) -> SessionRecord:
    """Return a session with its device, driver, toolchain, model, budget, reason and host.

    Raises:
        UsageError: there is none.
    """
    with store.reading() as connection:
        row = connection.execute(SESSIONS.where(session.c.id == session_id)).first()
    if row is None:
        raise UsageError(f"{store.name} has no session {session_id}", "`wgtune db info` counts what there is")
    return to_session(row)


def show_trial(store: SqlReader, session_id: int, number: int) -> dict[str, Any]:
    """Return every column of trial ``number`` of a session, counted from 1, with its kernel and trace, by name.

    ``replays`` holds, by TVM version, whether that version applies the trace or why not, as far as it was tested.

    Raises:
        UsageError: there is none.
    """
    query = (
        select(
            workload.c.name.label("kernel"),
            workload.c.digest.label("workload"),
            *(column for column in trial.c if column.name not in _KEYS),
            schedule.c.trace,
            trial.c.workload_id.label("of_workload"),
            trial.c.schedule_id.label("of_schedule"),
        )
        .join_from(trial, schedule)
        .join(workload, workload.c.id == trial.c.workload_id)
        .where(trial.c.session_id == session_id, trial.c.number == number)
    )
    with store.reading() as connection:
        row = connection.execute(query).first()
        if row is None:
            raise UsageError(f"{store.name} has no trial {session_id}/{number}", "trials of a session count from 1")
        shown = dict(row._mapping)
        answers = (
            select(replay.c.tvm_version, replay.c.status, replay.c.reason)
            .where(replay.c.workload_id == shown.pop("of_workload"), replay.c.schedule_id == shown.pop("of_schedule"))
            .order_by(replay.c.tvm_version)
        )
        shown["replays"] = {
            version: f"{status.value}: {reason}" if reason else status.value
            for version, status, reason in connection.execute(answers)
        }
    return shown
