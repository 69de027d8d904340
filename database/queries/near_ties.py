"""Records as fast as the best one, within noise: among these, something else than their times may decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import select

from ...support.enums import TrialState
from ...support.order_statistics import median_interval
from ..reader import Reader
from ..schema.records import Record, TrialKind
from ..schema.rows import RECORDS, device, to_record, trial, workload
from ..sql_reader import SqlReader, is_superseded

ALWAYS = 0.03
"""Share by which medians may differ and still count as equal, however well they are known."""

AT_MOST = 0.1
"""Share by which medians may differ at most where their confidence intervals overlap: few samples overlap with much."""

_LOOKED_AT = 200
"""Fastest trials of a workload in one database that are looked at."""


class Measured(NamedTuple):
    """What decides between records: seconds of one call and of compiling, and dispatches of one call."""

    latency_s: float
    compile_s: float
    launches: int


def near_ties(
    reader: Reader,
    best: Mapping[str, Record],
    order: Callable[[str, Measured], Any],
    *,
    fits: Callable[[Mapping[str, Any]], bool] | None = None,
    top: int = 4,
) -> dict[str, list[Record]]:
    """Return for each best record those of its workload and device within noise of it, itself among them.

    Two medians are within noise where they differ by 3 % at most, or where their 95 % confidence intervals overlap and
    they differ by a tenth at most. Left out is what `Reader.best` leaves out. Each program is there once.

    Args:
        reader: the database, or several.
        best: by workload id, as `Reader.best` returns them.
        order: receives a workload id and a trial's figures, and returns a sort key; the smallest comes first.
        fits: receives a record's ``needs`` and returns whether the record may be used.
        top: records of each workload; the best one is added where it is not among the first.
    """
    found = {}
    for workload_id, record in best.items():
        rivals = [
            (order(workload_id, measured), index, trial_id, program)
            for index, layer in enumerate(reader.layers)
            for trial_id, program, measured in _rivals(layer, workload_id, record, fits)
        ]
        chosen: dict[str, tuple[int, int]] = {}
        for _, index, trial_id, program in sorted(rivals):
            chosen.setdefault(program, (index, trial_id))
        records = [_record(reader, *place) for place in list(chosen.values())[:top]]
        if all(one.program_digest != record.program_digest for one in records):
            records.append(record)
        found[workload_id] = records
    return found


def within_noise(samples_s: Collection[float], latency_s: float, best: Record) -> bool:
    """Return whether a median of ``latency_s`` seconds over these samples is within noise of the best record's."""
    if latency_s <= (1 + ALWAYS) * best.latency_s:
        return True
    ours, theirs = median_interval(tuple(samples_s)), median_interval(best.samples_s)
    overlap = ours is not None and theirs is not None and ours.overlaps(theirs)
    return overlap and latency_s <= (1 + AT_MOST) * best.latency_s


def _rivals(
    layer: SqlReader, workload_id: str, best: Record, fits: Callable[[Mapping[str, Any]], bool] | None
) -> list[tuple[int, str, Measured]]:
    """Return trial, program and figures of each record within noise of ``best``; reads no traces."""
    columns = ("id", "latency_s", "compile_s", "launches", "samples_s", "needs", "program_digest")
    query = (
        select(*(trial.c[name] for name in columns))
        .select_from(trial)
        .join(device, device.c.id == trial.c.device_id)
        .join(workload, workload.c.id == trial.c.workload_id)
        .where(workload.c.digest == workload_id, device.c.key == best.device_key, trial.c.runtime == best.runtime)
        .where(trial.c.state == TrialState.OK, trial.c.kind != TrialKind.CHECK)
        .where(trial.c.latency_s <= (1 + AT_MOST) * best.latency_s, ~layer.stale(), ~is_superseded())
        .order_by(trial.c.latency_s, trial.c.id)
        .limit(_LOOKED_AT)
    )
    with layer.reading() as connection:
        return [
            (row.id, row.program_digest, Measured(row.latency_s, row.compile_s, row.launches))
            for row in connection.execute(query)
            if within_noise(row.samples_s, row.latency_s, best) and (fits is None or fits(row.needs))
        ]


def _record(reader: Reader, index: int, trial_id: int) -> Record:
    with reader.layers[index].reading() as connection:
        return reader.of_layer(to_record(connection.execute(RECORDS.where(trial.c.id == trial_id)).one()), index)
