"""Trials of each kernel in the order in which a search made them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import func, select

from ...support.enums import Runtime, TrialState
from ..schema.columns import BadValue, shown
from ..schema.records import TrialKind
from ..schema.rows import device, trial, workload
from ..sql_reader import SqlReader

_UNKNOWN = (TrialState.PENDING, TrialState.RUNNING, TrialState.ABANDONED, TrialState.UNVERIFIED)
"""States of trials that say nothing: not ended, or not of a search that verifies."""


class SearchTrial(NamedTuple):
    """A trial as a step of a search; ``latency_s`` is None unless it ended ``ok``."""

    session_id: int
    kind: TrialKind
    latency_s: float | None


def search_histories(
    reader: SqlReader, device_key: str, workload_ids: Collection[str], runtime: Runtime
) -> dict[str, list[SearchTrial]]:
    """Return the ended trials of each workload on a device, in the order in which they began, failures too.

    Checks are left out, and workloads without a trial; so are sessions of which not every trial is here, as in a
    release, which holds the best of a search and not the search. A repeat is no step of its own: its time replaces the
    earlier one's, by the rule of `is_superseded`. Stale schedules count, since they were measured once.
    """
    columns = (
        workload.c.digest,
        trial.c.session_id,
        trial.c.schedule_id,
        trial.c.program_digest,
        trial.c.kind,
        trial.c.state,
        trial.c.latency_s,
        trial.c.repeat,
    )
    partial = select(trial.c.session_id).group_by(trial.c.session_id).having(func.max(trial.c.number) > func.count())
    query = (
        select(*columns)
        .select_from(workload)
        .join(trial, trial.c.workload_id == workload.c.id)
        .join(device, device.c.id == trial.c.device_id)
        .where(workload.c.digest.in_(workload_ids), device.c.key == device_key)
        .where(trial.c.runtime == runtime, trial.c.state.not_in(_UNKNOWN))
        .where(trial.c.kind != TrialKind.CHECK, trial.c.session_id.not_in(partial))
        .order_by(workload.c.id, trial.c.started, trial.c.id)
    )
    with reader.reading() as connection:
        return {digest: _steps(rows) for digest, rows in groupby(connection.execute(query), lambda row: row[0])}


def _steps(rows: Iterable[Sequence[Any]]) -> list[SearchTrial]:
    """Return one workload's trials with each repeat in the place of what it repeats."""
    found: list[SearchTrial] = []
    programs: dict[int, list[tuple[int, str]]] = {}
    for _, session_id, schedule_id, program, kind, state, latency_s, repeat in rows:
        if latency_s is not None and not (isinstance(latency_s, float) and latency_s >= 0):
            raise BadValue(f"a latency of {shown(latency_s)} is no duration")
        earlier = programs.setdefault(schedule_id, [])
        if repeat and earlier:
            # A lost device may have had a cause outside the program.
            fails = state.fault and state is not TrialState.DEVICE_LOST
            for at, other in earlier:
                if state is TrialState.OK or (fails and program != other):
                    found[at] = found[at]._replace(latency_s=latency_s)
            continue
        earlier.append((len(found), program))
        found.append(SearchTrial(session_id, kind, latency_s))
    return found
