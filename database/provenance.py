"""Everything that is kept of one session or of one trial."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from ..errors import UsageError
from .reader import Reader
from .records import SessionRecord
from .rows import SESSIONS, schedule, session, to_session, trial, workload

_KEYS = frozenset({"id", "session_id", "workload_id", "device_id", "schedule_id"})


def show_session(store: Reader, session_id: int) -> SessionRecord:
    """A session with its device, driver, toolchain, model, budget, reason and host.

    Raises:
        UsageError: there is none.
    """
    with store.reading() as connection:
        row = connection.execute(SESSIONS.where(session.c.id == session_id)).first()
    if row is None:
        raise UsageError(f"{store.name} has no session {session_id}", "`wgtune db info` counts what there is")
    return to_session(row)


def show_trial(store: Reader, session_id: int, number: int) -> dict[str, Any]:
    """Trial ``number`` of a session, counted from 1: every column, its kernel and its trace, by name.

    Raises:
        UsageError: there is none.
    """
    query = (
        select(
            workload.c.name.label("kernel"),
            workload.c.digest.label("workload"),
            *(column for column in trial.c if column.name not in _KEYS),
            schedule.c.trace,
        )
        .join_from(trial, schedule)
        .join(workload, workload.c.id == trial.c.workload_id)
        .where(trial.c.session_id == session_id, trial.c.number == number)
    )
    with store.reading() as connection:
        row = connection.execute(query).first()
    if row is None:
        raise UsageError(f"{store.name} has no trial {session_id}/{number}", "trials of a session count from 1")
    return dict(row._mapping)
