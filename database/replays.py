"""Which kept schedules the installed TVM still applies: what has to be asked, and what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from ..states import Runtime, TrialState
from .inserting import schedule_id
from .reader import Reader
from .records import ReplayRecord, ReplayStatus
from .rows import clean, replay, schedule, session, trial, workload
from .store import Store

WGSL_RUNTIMES = frozenset({Runtime.WGPU, Runtime.BROWSER})


@dataclass(frozen=True)
class ReplayTask:
    """A schedule to apply to a workload again.

    ``tiers`` are those of the sessions that ran it as WGSL, none where it only ran as native code, and ``digests`` the
    SHA-256 of the programs that were measured.
    """

    workload_id: str
    trace: str
    tiers: tuple[str, ...]
    digests: frozenset[str]


def unasked(reader: Reader, tvm_version: str, *, again: bool = False, everything: bool = False) -> list[ReplayTask]:
    """The schedules of verified trials of which this TVM's answer is not known, in the order of their kernels.

    With ``again`` also those whose answer is; with ``everything`` those of trials that failed, too. Trials without a
    trace are left out. Raises DatabaseError when the database fails.
    """
    query = (
        select(workload.c.digest, schedule.c.trace, session.c.tier, trial.c.runtime, trial.c.program_digest)
        .join_from(trial, schedule)
        .join(session, session.c.id == trial.c.session_id)
        .join(workload, workload.c.id == trial.c.workload_id)
        .where(trial.c.ended.is_not(None))
        .order_by(workload.c.digest, trial.c.schedule_id, trial.c.id)
    )
    if not everything:
        query = query.where(trial.c.state == TrialState.OK)
    if not again:
        known = select(replay.c.workload_id).where(
            replay.c.workload_id == trial.c.workload_id,
            replay.c.schedule_id == trial.c.schedule_id,
            replay.c.tvm_version == tvm_version,
        )
        query = query.where(~known.exists())
    found: dict[tuple[str, str], tuple[dict[str, None], set[str]]] = {}
    with reader.reading() as connection:
        for row in connection.execute(query):
            if not row.trace:
                continue
            tiers, digests = found.setdefault((row.digest, row.trace), ({}, set()))
            if row.runtime in WGSL_RUNTIMES:
                tiers[row.tier] = None
                digests.add(row.program_digest)
    return [
        ReplayTask(workload_id, trace, tuple(tiers), frozenset(digests))
        for (workload_id, trace), (tiers, digests) in found.items()
    ]


def book(store: Store, records: Iterable[ReplayRecord]) -> None:
    """Keeps the answers; a later one of the same TVM takes the place of an earlier one.

    Raises DatabaseError where a workload is not in the database, or when the database fails.
    """
    now = datetime.now(timezone.utc)
    with store.writing() as connection:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        for record in records:
            digest = select(workload.c.id).where(workload.c.digest == record.workload_id)
            answer = {
                "status": record.status,
                "reason": clean(record.reason),
                "program_digest": record.program_digest,
                "checked": now,
            }
            statement = dialect.insert(replay).values(
                workload_id=connection.execute(digest).scalar_one(),
                schedule_id=schedule_id(connection, record.trace),
                tvm_version=record.tvm_version,
                **answer,
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["workload_id", "schedule_id", "tvm_version"], set_=answer
                )
            )


def answers(connection: Connection) -> dict[str, dict[ReplayStatus, int]]:
    """How many schedules are known to be what, by version of TVM."""
    query = select(replay.c.tvm_version, replay.c.status, func.count()).group_by(replay.c.tvm_version, replay.c.status)
    found: dict[str, dict[ReplayStatus, int]] = {}
    for version, status, count in connection.execute(query.order_by(replay.c.tvm_version, replay.c.status)):
        found.setdefault(version, {})[status] = count
    return found
