"""Repeated measurements: which schedules to measure again, and their old and new times."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select

from ...support.enums import Runtime, TrialState
from ..schema.records import Record, TrialKind
from ..schema.rows import RECORDS, to_record, trial
from ..sql_reader import SqlReader

REASON = "stability"
"""The reason of sessions that measure a device's schedules again."""


@dataclass(frozen=True)
class Remeasured:
    """One schedule's record, and the checks of a session that measured it again; their ``kind`` is `TrialKind.CHECK`.

    ``checks`` are in the order made; one that failed is None, so that those of several schedules stay in step.
    """

    before: Record
    checks: tuple[Record | None, ...]


def top_schedules(
    reader: SqlReader, device_key: str, workload_ids: Collection[str], runtime: Runtime, top: int
) -> dict[str, list[Record]]:
    """Return the ``top`` fastest verified schedules of each workload on a device, each once, the fastest first.

    Stale ones, which cannot be measured again, are not among what `SqlReader.tried` gives.
    """
    found = {}
    for workload_id in workload_ids:
        ended = [trial for trial in reader.tried(device_key, workload_id, runtime) if trial.state is TrialState.OK]
        fastest: dict[str, int] = {}
        for one in sorted(ended, key=lambda trial: (trial.latency_s or 0.0, trial.trial_id)):
            fastest.setdefault(one.trace, one.trial_id)
        chosen = list(fastest.values())[:top]
        if chosen:
            with reader.reading() as connection:
                rows = connection.execute(RECORDS.where(trial.c.id.in_(chosen)))
                found[workload_id] = sorted((to_record(row) for row in rows), key=lambda record: record.latency_s)
    return found


def remeasured(reader: SqlReader, session_id: int) -> list[Remeasured]:
    """Return every schedule that a session checked, with its latest record before that, in order of their first checks.

    Whatever became stale since: it compares what was measured, and offers nothing. Schedules without a record before
    are left out, and those of which no check ended ``ok``.
    """
    ended = (
        RECORDS.where(trial.c.session_id == session_id, trial.c.kind == TrialKind.CHECK)
        .where(trial.c.state != TrialState.ABANDONED, trial.c.ended.is_not(None))
        .order_by(trial.c.id)
    )
    checks: dict[tuple[int, int], list[Row[Any] | None]] = {}
    found = []
    with reader.reading() as connection:
        for row in connection.execute(ended):
            good = row if row.state is TrialState.OK else None
            checks.setdefault((row.workload_id, row.schedule_id), []).append(good)
        for made in checks.values():
            first = next((row for row in made if row is not None), None)
            before = connection.execute(_before(first)).first() if first is not None else None
            if before is not None:
                again = tuple(None if row is None else to_record(row) for row in made)
                found.append(Remeasured(to_record(before), again))
    return found


def _before(check: Row[Any]) -> Select[Any]:
    """Return the latest record of what ``check`` measured that is older."""
    return (
        RECORDS.where(
            trial.c.schedule_id == check.schedule_id,
            trial.c.workload_id == check.workload_id,
            trial.c.device_id == check.device_id,
            trial.c.runtime == check.runtime,
            trial.c.state == TrialState.OK,
            trial.c.kind != TrialKind.CHECK,
            trial.c.started < check.started,
        )
        .order_by(trial.c.started.desc(), trial.c.id.desc())
        .limit(1)
    )


def last_comparison(
    reader: SqlReader, device_key: str, capture_key: str, reason: str, before: int | None = None
) -> int | None:
    """Return the latest session on a device and a model whose reason is ``reason``; None where there is none.

    With ``before``, the latest that began before that session.
    """
    kept = [one for one in reader.sessions(device_key=device_key, capture_key=capture_key) if one.info.reason == reason]
    if before is not None:
        kept = kept[[one.session_id for one in kept].index(before) + 1 :]
    return kept[0].session_id if kept else None
