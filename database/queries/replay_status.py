"""Which stored schedules the installed TVM still applies: those to test, and the results.

Answers are kept in the user's own database, those about releases, too: nobody writes to a release.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from ...support.enums import Runtime, TrialState
from ...support.errors import DatabaseError
from ...support.hashing import digest_of
from ..schema.engine import is_read_only
from ..schema.records import ReplayRecord, ReplayStatus
from ..schema.rows import clean, replay, schedule, session, trial, workload
from ..sql_helpers import matching, schedule_id
from ..sql_reader import SqlReader
from ..store import Store

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


@dataclass(frozen=True)
class StaleSchedule:
    """A schedule of ``kernel`` that a TVM version does not apply, and why.

    ``own`` is false where only a release has trials of it.
    """

    kernel: str
    why: str
    own: bool


@dataclass(frozen=True)
class ReleaseReplays:
    """How many schedules a release has, and of how many the installed TVM's answer is known; ``file`` is its name."""

    file: str
    schedules: int
    answers: dict[ReplayStatus, int]


def check_keeps_answers(store: Store) -> None:
    """Raise DatabaseError where the store cannot be written to, as a release."""
    if is_read_only(store._engine):
        raise DatabaseError(
            f"{store.name} is read-only, but the answers of TVM must be stored",
            f"wgtune db replay --releases {store.name}: answers about a release are stored in your own database",
        )


def unasked(
    reader: SqlReader, tvm_version: str, *, own: SqlReader | None = None, again: bool = False, everything: bool = False
) -> list[ReplayTask]:
    """Return the schedules of verified trials of which this TVM's answer is not known, in the order of their kernels.

    Where ``reader`` is a release, ``own`` is the user's database: its answers count, and not what a release says of
    itself. With ``again`` also those whose answer is known; with ``everything`` those of trials that failed, too.
    Trials without a trace are left out. Raises DatabaseError when the database fails.
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
    if not again and own is None:
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
    tasks = {
        (workload_id, digest_of(trace)): ReplayTask(workload_id, trace, tuple(tiers), frozenset(digests))
        for (workload_id, trace), (tiers, digests) in found.items()
    }
    if own is not None and not again:
        for pair in _answers(own, tvm_version, tasks.keys()):
            del tasks[pair]
    return list(tasks.values())


def known_stale(own: SqlReader, release: SqlReader, tvm_version: str) -> list[tuple[int, int]]:
    """Return the schedules of a release that ``own`` knows to be stale: the release's workload and schedule ids."""
    pairs = _pairs(release)
    return [pairs[pair] for pair, status in _answers(own, tvm_version, pairs).items() if status is ReplayStatus.STALE]


def release_replays(own: SqlReader, release: SqlReader, tvm_version: str) -> ReleaseReplays:
    """Count a release's schedules by the status that the user's ``own`` database stores."""
    pairs = _pairs(release)
    known = list(_answers(own, tvm_version, pairs).values())
    counts = {status: known.count(status) for status in ReplayStatus if status in known}
    return ReleaseReplays(Path(release.name).name, len(pairs), counts)


def stale_schedules(reader: SqlReader, tvm_version: str) -> list[StaleSchedule]:
    """Return every schedule that is known not to apply under a version of TVM, by kernel."""
    tried = (
        select(trial.c.id)
        .where(trial.c.workload_id == replay.c.workload_id, trial.c.schedule_id == replay.c.schedule_id)
        .correlate(replay)
        .exists()
    )
    query = (
        select(workload.c.name, replay.c.reason, tried)
        .join_from(replay, workload)
        .where(replay.c.tvm_version == tvm_version, replay.c.status == ReplayStatus.STALE)
        .order_by(workload.c.name, replay.c.workload_id, replay.c.schedule_id)
    )
    with reader.reading() as connection:
        return [StaleSchedule(name, reason, bool(own)) for name, reason, own in connection.execute(query)]


def _pairs(release: SqlReader) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the ids of the workloads and the schedules that have trials together, by their digests."""
    query = (
        select(workload.c.digest, schedule.c.digest.label("trace"), workload.c.id, schedule.c.id.label("schedule"))
        .select_from(trial)
        .join(workload, workload.c.id == trial.c.workload_id)
        .join(schedule, schedule.c.id == trial.c.schedule_id)
        .where(schedule.c.digest != digest_of(""))
        .distinct()
    )
    with release.reading() as connection:
        return {(row.digest, row.trace): (row.id, row.schedule) for row in connection.execute(query)}


def _answers(
    own: SqlReader, tvm_version: str, pairs: Collection[tuple[str, str]]
) -> dict[tuple[str, str], ReplayStatus]:
    """Return the known status of pairs of workload digest and schedule digest."""
    found: dict[tuple[str, str], ReplayStatus] = {}
    with own.reading() as connection:
        workloads = _ids(connection, workload, {one for one, _ in pairs})
        schedules = _ids(connection, schedule, {one for _, one in pairs})
        known = {
            (workloads[one], schedules[other]): (one, other)
            for one, other in pairs
            if one in workloads and other in schedules
        }
        query = select(replay.c.workload_id, replay.c.schedule_id, replay.c.status)
        query = query.where(replay.c.tvm_version == tvm_version)
        for match in matching([replay.c.workload_id, replay.c.schedule_id], known):
            for one, other, status in connection.execute(query.where(match)):
                found[known[one, other]] = status
    return found


def _ids(connection: Connection, table: Table, digests: Collection[str]) -> dict[str, int]:
    query = select(table.c.digest, table.c.id)
    return {
        row.digest: row.id
        for match in matching([table.c.digest], [(digest,) for digest in digests])
        for row in connection.execute(query.where(match))
    }


def book(store: Store, records: Iterable[ReplayRecord]) -> None:
    """Store the answers; a later one of the same TVM version replaces an earlier one.

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
    """Count the schedules by TVM version and status."""
    query = select(replay.c.tvm_version, replay.c.status, func.count()).group_by(replay.c.tvm_version, replay.c.status)
    found: dict[str, dict[ReplayStatus, int]] = {}
    for version, status, count in connection.execute(query.order_by(replay.c.tvm_version, replay.c.status)):
        found.setdefault(version, {})[status] = count
    return found
