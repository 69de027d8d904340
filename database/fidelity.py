"""The same schedules on two devices, or through two runtimes: what `wgtune report fidelity` compares."""

from __future__ import annotations

from dataclasses import dataclass

from ..states import Runtime, TrialState
from .reader import Reader
from .records import Record, TrialKind
from .rows import RECORDS, device, session, to_record, trial

REASON = "fidelity"
"""Sessions that measure another device's schedules are kept under this, and a label behind a colon."""


@dataclass(frozen=True)
class Pair:
    """One schedule of one workload, measured and verified in two places; the latest measurement of each."""

    here: Record
    there: Record


def labelled(label: str) -> str:
    """The reason of a session that measured under ``label``, which may be empty."""
    return f"{REASON}: {label}" if label else REASON


def shared_schedules(
    reader: Reader, here: tuple[str, Runtime], there: tuple[str, Runtime], label: str = ""
) -> list[Pair]:
    """Every schedule that has verified times on both (device key, runtime), by workload and time here.

    ``label`` narrows the second device to what was measured under it; what has another label never counts. Stale
    schedules count: times are compared, and nothing is offered.
    """
    first, second = _latest(reader, here, ""), _latest(reader, there, label)
    pairs = [Pair(record, second[key]) for key, record in first.items() if key in second]
    return sorted(pairs, key=lambda pair: (pair.here.workload_id, pair.here.latency_s))


def _latest(reader: Reader, place: tuple[str, Runtime], label: str) -> dict[tuple[str, str], Record]:
    key, runtime = place
    query = RECORDS.where(device.c.key == key, trial.c.runtime == runtime, trial.c.state == TrialState.OK)
    if label:
        query = query.where(session.c.reason == labelled(label))
    else:
        query = query.where(session.c.reason.not_like(f"{REASON}: %"))
        # Tuning's own times first; checks fill in what was never tuned there.
        query = query.where((trial.c.kind != TrialKind.CHECK) | (session.c.reason == REASON))
    with reader.reading() as connection:
        records = [to_record(row) for row in connection.execute(query.order_by(trial.c.id))]
    return {(record.workload_id, record.trace): record for record in records}
