"""Trials as search learns from them: what schedules took on which device, with the features of schedules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select

from ...support.enums import Runtime, TrialState
from ..reader import Reader
from ..schema.records import SessionInfo, TrialKind
from ..schema.rows import (
    SESSIONS,
    check_digest,
    device,
    schedule,
    schedule_features,
    session,
    to_features,
    to_session,
    trial,
    workload,
)
from ..sql_reader import is_superseded

_WGSL = (Runtime.WGPU, Runtime.BROWSER)


@dataclass(frozen=True)
class TaughtTrial:
    """An ended trial.

    ``session`` tells the device, its driver, limits and calibration. ``features`` are None where none are kept.
    ``trace`` is empty unless it was asked for; ``latency_s`` is None for a trial that failed.
    """

    workload_id: str
    session: SessionInfo
    latency_s: float | None
    features: Mapping[str, float] | None
    trace: str = ""


def featured_trials(
    reader: Reader,
    version: int,
    *,
    software: bool,
    runtime: Runtime,
    workload_ids: Collection[str],
    within: bool,
    limit: int,
) -> list[TaughtTrial]:
    """Return the latest trials whose schedules have features of ``version``, the latest first.

    Args:
        reader: the database.
        version: of the features.
        software: whether trials of software adapters or those of GPUs are asked for: one kind says little of the other.
        runtime: WGSL is measured in two, whose programs are the same; others stand alone.
        workload_ids: kernels.
        within: whether trials of these kernels are asked for, or those of all others.
        limit: most trials of each database.
    """
    chosen = workload.c.digest.in_(workload_ids)
    query = (
        _trials(software, runtime)
        .join(schedule, schedule.c.id == trial.c.schedule_id)
        .join(schedule_features, _features_of(version))
        .add_columns(schedule_features.c.features)
        .where(chosen if within else ~chosen)
        .order_by(trial.c.id.desc())
        .limit(limit)
    )
    return _read(reader, query, featured=True)


def lent_trials(
    reader: Reader,
    version: int,
    *,
    software: bool,
    runtime: Runtime,
    workload_id: str,
    device_key: str,
    limit: int,
) -> list[TaughtTrial]:
    """Return other devices' fastest trials of a kernel with their traces, and features of ``version`` where kept.

    At most ``limit``, of each device as many, baselines among them; arguments as for `featured_trials`. Another runtime
    of the device ``device_key`` counts as another device.
    """
    known = {workload_id}
    lenders = [
        (other.key, way)
        for other in reader.devices()
        for way in _ways(runtime)
        if other.software == software
        and (other.key, way) != (device_key, runtime)
        and reader.counts(other.key, known, way).get(workload_id, {}).get(TrialState.OK)
    ]
    found: list[TaughtTrial] = []
    for key, way in lenders:
        query = (
            _trials(software, way)
            .join(schedule, schedule.c.id == trial.c.schedule_id)
            .outerjoin(schedule_features, _features_of(version))
            .add_columns(schedule_features.c.features, schedule.c.trace, schedule.c.digest.label("schedule_digest"))
            .where(trial.c.runtime == way, device.c.key == key, workload.c.digest == workload_id)
            .where(trial.c.state == TrialState.OK)
            .order_by(trial.c.latency_s, trial.c.id)
            .limit(max(1, limit // len(lenders)))
        )
        found += _read(reader, query)
    return found


def _ways(runtime: Runtime) -> tuple[Runtime, ...]:
    return _WGSL if runtime in _WGSL else (runtime,)


def _trials(software: bool, runtime: Runtime) -> Select[Any]:
    """Return the query of trials whose end says something about their schedule."""
    ended = trial.c.ended.is_not(None) & trial.c.state.not_in([TrialState.ABANDONED, TrialState.UNVERIFIED])
    return (
        select(trial.c.session_id, workload.c.digest, trial.c.state, trial.c.latency_s)
        .select_from(trial)
        .join(workload, workload.c.id == trial.c.workload_id)
        .join(device, device.c.id == trial.c.device_id)
        .where(device.c.software == software, or_(*(trial.c.runtime == way for way in _ways(runtime))))
        .where(ended, trial.c.kind != TrialKind.CHECK, trial.c.state != TrialState.DEVICE_LOST, ~is_superseded())
    )


def _features_of(version: int) -> ColumnElement[bool]:
    return and_(
        schedule_features.c.schedule_digest == schedule.c.digest,
        schedule_features.c.workload_digest == workload.c.digest,
        schedule_features.c.version == version,
    )


def _read(reader: Reader, query: Select[Any], *, featured: bool = False) -> list[TaughtTrial]:
    found = []
    for layer in reader.layers:
        with layer.reading() as connection:
            if featured and connection.execute(select(schedule_features.c.version).limit(1)).first() is None:
                continue  # a million trials would be read for nothing
            rows = connection.execute(query).all()
            sessions: dict[int, SessionInfo] = {}
            wanted = sorted({row.session_id for row in rows})
            for start in range(0, len(wanted), 200):
                some = session.c.id.in_(wanted[start : start + 200])
                kept = map(to_session, connection.execute(SESSIONS.where(some)))
                sessions |= {one.session_id: one.info for one in kept}
        for row in rows:
            trace = getattr(row, "trace", "")
            if trace:
                check_digest(trace, row.schedule_digest, "trace")
            features = None if row.features is None else to_features(row.features)
            found.append(TaughtTrial(row.digest, sessions[row.session_id], row.latency_s, features, trace))
    return found
