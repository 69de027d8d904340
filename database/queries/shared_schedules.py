"""Schedules measured on two devices, or through two runtimes, as `wgtune report fidelity` compares them."""

from __future__ import annotations

from dataclasses import dataclass

from ...support.enums import Runtime, TrialState
from ..schema.records import Record, TrialKind
from ..schema.rows import RECORDS, device, session, to_record, trial
from ..sql_reader import SqlReader
from .remeasured import REASON as STABILITY

REASON = "fidelity"
"""The reason of sessions that measure another device's schedules; a colon and a label may follow."""


@dataclass(frozen=True)
class Pair:
    """One schedule of one workload, measured and verified in two places: there and here a record for each round."""

    here: tuple[Record, ...]
    there: tuple[Record, ...]


def labelled(label: str) -> str:
    """Return the reason of a session that measured under ``label``, which may be empty."""
    return f"{REASON}: {label}" if label else REASON


def shared_schedules(
    reader: SqlReader, here: tuple[str, Runtime], there: tuple[str, Runtime], label: str = ""
) -> list[Pair]:
    """Return every schedule that has verified times on both (device key, runtime), by workload and time here.

    Of several sessions that measured a schedule in one place the one with the most rounds counts, of these one that
    tuned, of these the latest. ``label`` narrows the second device to what was measured under it; what has another
    label never counts. Stale schedules count: times are compared, and nothing is offered.
    """
    first, second = _measured(reader, here, ""), _measured(reader, there, label)
    pairs = [Pair(records, second[key]) for key, records in first.items() if key in second]
    return sorted(pairs, key=lambda pair: (pair.here[-1].workload_id, pair.here[-1].latency_s))


def _measured(reader: SqlReader, place: tuple[str, Runtime], label: str) -> dict[tuple[str, str], tuple[Record, ...]]:
    """Return the records of each (workload, trace) in a place."""
    key, runtime = place
    query = RECORDS.where(device.c.key == key, trial.c.runtime == runtime, trial.c.state == TrialState.OK)
    if label:
        query = query.where(session.c.reason == labelled(label))
    else:
        query = query.where(session.c.reason.not_like(f"{REASON}: %"))
        # A session that tunes checks only how fast the device still is.
        query = query.where((trial.c.kind != TrialKind.CHECK) | session.c.reason.in_([REASON, STABILITY]))
    sessions: dict[tuple[str, str], dict[int, list[Record]]] = {}
    with reader.reading() as connection:
        for row in connection.execute(query.order_by(trial.c.id)):
            record = to_record(row)
            kept = sessions.setdefault((record.workload_id, record.trace), {}).setdefault(record.session_id, [])
            if record.kind is not TrialKind.CHECK:
                kept.clear()  # what is measured again replaces what was before
            kept.append(record)
    best = {schedule: max(kept.values(), key=_worth) for schedule, kept in sessions.items()}
    return {schedule: tuple(records) for schedule, records in best.items()}


def _worth(records: list[Record]) -> tuple[int, bool, int]:
    """Return the sort key by which one session's measurements of a schedule are preferred to another's."""
    return len(records), records[-1].kind is not TrialKind.CHECK, records[-1].trial_id
