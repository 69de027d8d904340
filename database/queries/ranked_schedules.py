"""Schedules of a workload in order of their times, each once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from ...support.enums import Runtime, TrialState
from ..reader import Reader
from ..schema.records import TrialKind
from ..schema.rows import device, schedule, session, trial, workload
from ..sql_reader import is_superseded

_AT_ONCE = 50


@dataclass(frozen=True)
class RankedSchedule:
    """A schedule of a workload: its trace, the samples in seconds, and the target that it was tuned for.

    ``target`` is TVM's own description as JSON values, None where the session has none.
    """

    workload_id: str
    trace: str
    samples_s: tuple[float, ...]
    target: dict[str, Any] | None


class RankedSchedules:
    """The schedules of one device and one way of measuring in one database, or in several layers of one.

    Verified schedules, and with ``unverified`` also those whose results nobody checked. Left out are checks, and
    schedules that the installed TVM is known not to apply. Of repeated measurements the latest counts.
    """

    def __init__(self, reader: Reader, device_key: str, runtime: Runtime, *, unverified: bool = False) -> None:
        self._layers = reader.layers
        self._device = device_key
        self._runtime = runtime
        self._states = [TrialState.OK, *([TrialState.UNVERIFIED] if unverified else [])]

    def __len__(self) -> int:
        return len(self._ranked(None))

    def workloads(self) -> list[str]:
        """Return the ids of the workloads that have schedules, in order."""
        return sorted({workload_id for workload_id, _, _, _ in self._ranked(None)})

    def of(self, workload_id: str) -> Iterator[RankedSchedule]:
        """Yield a workload's schedules by median latency; the user's own precede equal ones of a release."""
        ranked = self._ranked([workload_id])
        for start in range(0, len(ranked), _AT_ONCE):
            some = ranked[start : start + _AT_ONCE]
            found: dict[tuple[int, int], RankedSchedule] = {}
            for index, layer in enumerate(self._layers):
                ids = [trial_id for _, _, own, trial_id in some if own == index]
                with layer.reading() as connection:
                    for row in connection.execute(_details().where(trial.c.id.in_(ids))):
                        one = RankedSchedule(workload_id, row.trace, tuple(row.samples_s), _target(row.target))
                        found[index, row.id] = one
            yield from (found[index, trial_id] for _, _, index, trial_id in some)

    def _ranked(self, workload_ids: Collection[str] | None) -> list[tuple[str, float, int, int]]:
        """Workload, latency in seconds, layer and trial of each schedule, the fastest first."""
        query = (
            select(workload.c.digest, schedule.c.digest.label("trace"), trial.c.latency_s, trial.c.id)
            .select_from(trial)
            .join(workload, workload.c.id == trial.c.workload_id)
            .join(schedule, schedule.c.id == trial.c.schedule_id)
            .join(device, device.c.id == trial.c.device_id)
            .where(device.c.key == self._device, trial.c.runtime == self._runtime, trial.c.state.in_(self._states))
            .where(trial.c.kind != TrialKind.CHECK, ~is_superseded())
            .order_by(trial.c.latency_s, trial.c.started, trial.c.number)
        )
        if workload_ids is not None:
            query = query.where(workload.c.digest.in_(workload_ids))
        fastest: dict[tuple[str, str], tuple[str, float, int, int]] = {}
        for index, layer in enumerate(self._layers):
            with layer.reading() as connection:
                for digest, trace, latency_s, trial_id in connection.execute(query.where(~layer.stale())):
                    kept = fastest.get((digest, trace))
                    if kept is None or latency_s < kept[1]:
                        fastest[digest, trace] = (digest, latency_s, index, trial_id)
        return sorted(fastest.values(), key=lambda one: (one[1], one[2], one[3]))


def _details() -> Select[Any]:
    return (
        select(trial.c.id, schedule.c.trace, trial.c.samples_s, session.c.target)
        .select_from(trial)
        .join(schedule, schedule.c.id == trial.c.schedule_id)
        .join(session, session.c.id == trial.c.session_id)
    )


def _target(text: str) -> dict[str, Any] | None:
    try:
        values = json.loads(text) if text else None
    except ValueError:  # in words, as older sessions have it
        return None
    return values if isinstance(values, dict) else None
