"""Health of devices: results of trials by state, programs that crash a device, and whether it still works."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select

from ...support.enums import QUARANTINE_AFTER, SUSPEND_AFTER, Runtime, TrialState
from ..schema.records import DeviceInfo
from ..schema.rows import device, session, to_device, trial, workload
from ..sql_reader import SqlReader

_CRASHES = tuple(state for state in TrialState if state.crash)


@dataclass(frozen=True)
class Crash:
    """A trial that crashed the worker or the device; ``ended`` is UTC."""

    trial_id: int
    kernel: str
    state: TrialState
    error: str
    ended: datetime


@dataclass(frozen=True)
class Quarantined:
    """A program of ``kernel`` that is not run any more under ``driver``, after ``crashes`` that ended as ``states``."""

    kernel: str
    program_digest: str
    driver: str
    crashes: int
    states: tuple[TrialState, ...]


@dataclass(frozen=True)
class DriverUse:
    """A driver's description, and when sessions on it began first and last (UTC)."""

    driver: str
    sessions: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class DeviceHealth:
    """The results of one device's trials through one runtime.

    ``crashes_in_a_row`` are the latest trials, back to the last one that left the worker standing; as many as suspend
    a device mean that it was, and that nothing has run on it since.
    """

    device: DeviceInfo
    runtime: Runtime
    trials: dict[TrialState, int]
    drivers: list[DriverUse]
    crashes_in_a_row: int
    last_crash: Crash | None
    quarantined: list[Quarantined]

    @property
    def suspended(self) -> bool:
        """Whether every recent trial crashed."""
        return self.crashes_in_a_row >= SUSPEND_AFTER

    @property
    def ended(self) -> int:
        """Number of ended trials, without abandoned ones."""
        return sum(count for state, count in self.trials.items() if state.ended and state is not TrialState.ABANDONED)

    @property
    def crashes(self) -> int:
        """Number of trials that crashed the worker or the device."""
        return sum(count for state, count in self.trials.items() if state.crash)


def device_health(reader: SqlReader) -> list[DeviceHealth]:
    """Return the health of every device that had a session, by key and runtime."""
    with reader.reading() as connection:
        used = connection.execute(
            select(device, session.c.runtime).join_from(device, session).distinct().order_by(device.c.key)
        ).all()
    return [_health(reader, row.id, to_device(row), row.runtime) for row in used]


def crashes(reader: SqlReader, session_id: int, workload_id: str) -> dict[str, tuple[int, TrialState]]:
    """How often programs of a workload crashed where ``session_id`` runs, and how they did last, by program digest.

    Where it runs is its device, its runtime and its driver: another driver may know how to run them.
    """
    here = select(session).where(session.c.id == session_id).subquery()
    query = (
        select(trial.c.program_digest, trial.c.state)
        .join_from(trial, session)
        .join(workload, workload.c.id == trial.c.workload_id)
        .join(here, (here.c.device_id == trial.c.device_id) & (here.c.runtime == trial.c.runtime))
        .where(workload.c.digest == workload_id, trial.c.state.in_(_CRASHES), trial.c.program_digest != "")
        .where(session.c.driver == here.c.driver)
        .order_by(trial.c.id)
    )
    found: dict[str, tuple[int, TrialState]] = {}
    with reader.reading() as connection:
        for digest, state in connection.execute(query):
            found[digest] = (found.get(digest, (0, state))[0] + 1, state)
    return found


def _health(reader: SqlReader, device_id: int, info: DeviceInfo, runtime: Runtime) -> DeviceHealth:
    here = (trial.c.device_id == device_id, trial.c.runtime == runtime)
    counts = select(trial.c.state, func.count().label("trials")).where(*here).group_by(trial.c.state)
    drivers = (
        select(session.c.driver, func.count(), func.min(session.c.started), func.max(session.c.started))
        .where(session.c.device_id == device_id, session.c.runtime == runtime)
        .group_by(session.c.driver)
        .order_by(func.max(session.c.started))
    )
    with reader.reading() as connection:
        by_state = {row.state: int(row.trials) for row in connection.execute(counts)}
        uses = [DriverUse(*row) for row in connection.execute(drivers)]
        last = connection.execute(_crash_query().where(*here).order_by(trial.c.ended.desc()).limit(1)).first()
        latest = connection.execute(
            select(trial.c.state)
            .where(*here, trial.c.ended.is_not(None), trial.c.state != TrialState.ABANDONED)
            .order_by(trial.c.ended.desc(), trial.c.id.desc())
            .limit(SUSPEND_AFTER)
        ).scalars()
        in_a_row = 0
        for state in latest:
            if not state.crash:
                break
            in_a_row += 1
    return DeviceHealth(
        device=info,
        runtime=runtime,
        trials={state: by_state[state] for state in TrialState if state in by_state},
        drivers=uses,
        crashes_in_a_row=in_a_row,
        last_crash=None if last is None else Crash(last.id, last.name, last.state, last.error, last.ended),
        quarantined=_quarantined(reader, here),
    )


def _crash_query() -> Select[Any]:
    return (
        select(trial.c.id, workload.c.name, trial.c.state, trial.c.error, trial.c.ended)
        .join_from(trial, workload)
        .where(trial.c.state.in_(_CRASHES))
    )


def _quarantined(reader: SqlReader, here: Collection[ColumnElement[bool]]) -> list[Quarantined]:
    query = (
        select(workload.c.name, trial.c.program_digest, session.c.driver, trial.c.state)
        .join_from(trial, session)
        .join(workload, workload.c.id == trial.c.workload_id)
        .where(*here, trial.c.state.in_(_CRASHES), trial.c.program_digest != "")
        .order_by(workload.c.name, trial.c.id)
    )
    by_program: dict[tuple[str, str, str], list[TrialState]] = {}
    with reader.reading() as connection:
        for name, digest, driver, state in connection.execute(query):
            by_program.setdefault((name, digest, driver), []).append(state)
    return [
        Quarantined(name, digest, driver, len(states), tuple(dict.fromkeys(states)))
        for (name, digest, driver), states in by_program.items()
        if len(states) >= QUARANTINE_AFTER
    ]
