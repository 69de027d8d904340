"""Schedules that were measured more than once: what to measure again, and what came of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..states import Runtime, TrialState
from .reader import Reader
from .records import Record, TrialKind
from .rows import RECORDS, to_record, trial


@dataclass(frozen=True)
class Remeasured:
    """One schedule's record, and the check that measured it again; the latter's ``kind`` is `TrialKind.CHECK`."""

    before: Record
    after: Record


def top_schedules(
    reader: Reader, device_key: str, workload_ids: Collection[str], runtime: Runtime, top: int
) -> dict[str, list[Record]]:
    """The ``top`` fastest verified schedules of each workload on a device, each once, the fastest first.

    Stale ones, which cannot be measured again, are not among what `Reader.tried` gives.
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


def remeasured(reader: Reader, session_id: int) -> list[Remeasured]:
    """Every check of a session that ended ``ok``, with the schedule's latest record before it, in order of checks.

    Whatever became stale since: it compares what was measured, and offers nothing.
    """
    checks = RECORDS.where(
        trial.c.session_id == session_id, trial.c.kind == TrialKind.CHECK, trial.c.state == TrialState.OK
    ).order_by(trial.c.id)
    pairs = []
    with reader.reading() as connection:
        for check in connection.execute(checks):
            before = connection.execute(
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
            ).first()
            if before is not None:
                pairs.append(Remeasured(to_record(before), to_record(check)))
    return pairs


def last_comparison(reader: Reader, device_key: str, capture_key: str, reason: str) -> int | None:
    """The latest session on a device and a model whose reason is ``reason``; None where there is none."""
    kept = reader.sessions(device_key=device_key, capture_key=capture_key)
    return next((one.session_id for one in kept if one.info.reason == reason), None)
