"""Stored schedules applied again under the installed TVM, in a child process that they may crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...database.queries.replay_status import (
    ReplayTask,
    StaleSchedule,
    book,
    check_keeps_answers,
    stale_schedules,
    unasked,
)
from ...database.schema.records import ReplayRecord, ReplayStatus, WorkloadInfo
from ...database.sql_reader import SqlReader, installed_tvm
from ...database.store import Store
from .restarting_child import EntryFailed, RestartingChild

CHILD = "wgtune.tuner.interop.replay_child"
LIMIT_S = 120.0
"""Seconds for one schedule. Real ones take tens of milliseconds, the first of a child a few seconds more."""
_BATCH = 20


@dataclass
class ReplaySummary:
    """The result of a replay.

    ``asked`` counts the schedules that were applied and ``replayable`` those that still apply. Of these, ``changed``
    emit another program than was measured, and count as unverified until measured again. ``stale`` holds (kernel name,
    reason) of the others. ``known_stale`` are all schedules that are stale under this TVM, those of earlier runs and of
    releases included.
    """

    tvm_version: str
    asked: int = 0
    replayable: int = 0
    changed: int = 0
    stale: list[tuple[str, str]] = field(default_factory=list)
    known_stale: list[StaleSchedule] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return this as JSON values."""
        return {
            "tvm": self.tvm_version,
            "asked": self.asked,
            "replayable": self.replayable,
            "changed": self.changed,
            "stale": [{"kernel": kernel, "why": why} for kernel, why in self.stale],
            "known_stale": [asdict(one) for one in self.known_stale],
        }


def replay_database(
    store: Store,
    progress: Callable[[str, float], None] = lambda what, done: None,
    *,
    releases: Sequence[SqlReader] = (),
    again: bool = False,
    everything: bool = False,
    limit_s: float = LIMIT_S,
) -> ReplaySummary:
    """Apply the schedules that `replay_status.unasked` names, and store the answers as they come.

    A schedule is stale where TVM rejects it, where its program fits none of the tiers that it was measured on, where it
    crashes TVM, and where it takes too long.

    Args:
        store: holds the schedules and takes the answers.
        progress: receives the kernel's name and the share of the schedules that is done, from 0 to 1.
        releases: whose schedules are applied too; ``store`` takes over their kernels with the answers.
        again: whether schedules with an answer are applied again.
        everything: whether schedules of trials that failed are applied too.
        limit_s: seconds that TVM may take for one schedule.

    Raises:
        DatabaseError: the database fails, or cannot be written to.
    """
    check_keeps_answers(store)
    version = installed_tvm()
    tasks = _tasks(store, releases, version, again, everything)
    found = ReplaySummary(version, len(tasks))
    infos = _LatestWorkload(store)
    fresh: list[ReplayRecord] = []
    with RestartingChild(CHILD, limit_s) as child:
        try:
            for done, task in enumerate(tasks):
                info = infos[task.workload_id]
                progress(info.name, done / len(tasks))
                record = _ask(child, task, info, version)
                fresh.append(record)
                if record.status is ReplayStatus.STALE:
                    found.stale.append((info.name, record.reason))
                else:
                    found.replayable += 1
                    found.changed += bool(task.tiers) and record.program_digest not in task.digests
                if len(fresh) >= _BATCH:
                    book(store, fresh)
                    fresh.clear()
        finally:
            book(store, fresh)
    found.known_stale = stale_schedules(store, version)
    return found


def _tasks(
    store: Store, releases: Sequence[SqlReader], version: str, again: bool, everything: bool
) -> list[ReplayTask]:
    """Return each schedule to apply once; ``store`` takes over the kernels of those that only a release has."""
    lent = []
    for release in releases:
        tasks = unasked(release, version, own=store, again=again, everything=everything)
        # Before the store's own are asked about: the installed TVM's form of a kernel may be a release's.
        store.add_workloads(release.workloads({task.workload_id for task in tasks}).values())
        lent += tasks
    found: dict[tuple[str, str], ReplayTask] = {}
    for task in (*unasked(store, version, again=again, everything=everything), *lent):
        found.setdefault((task.workload_id, task.trace), task)
    return sorted(found.values(), key=lambda task: task.workload_id)


class _LatestWorkload:
    """Reads one workload at a time: their texts are long, and tasks are sorted by kernel."""

    def __init__(self, reader: SqlReader) -> None:
        self._reader = reader
        self._info: WorkloadInfo | None = None

    def __getitem__(self, workload_id: str) -> WorkloadInfo:
        if self._info is None or self._info.id != workload_id:
            self._info = self._reader.workloads([workload_id])[workload_id]
        return self._info


def _ask(child: RestartingChild, task: ReplayTask, info: WorkloadInfo, version: str) -> ReplayRecord:
    # Another version's form may do as well: whatever it is read as is compared with the kernel's text.
    form = next((form for form in info.forms if form.tvm_version == version), info.forms[-1] if info.forms else None)
    if form is None:
        answer: dict[str, Any] = {"stale": "its kernel is stored in no form that TVM reads"}
    else:
        kernel = {"name": info.name, "text": info.text, "module": form.module, "outputs": len(info.outputs)}
        try:
            answer = child.ask({"trace": task.trace, "tiers": list(task.tiers)}, kernel, info.id)
        except EntryFailed as failure:
            answer = {"stale": str(failure)}
    if "stale" in answer:
        return ReplayRecord(info.id, task.trace, version, ReplayStatus.STALE, str(answer["stale"]))
    return ReplayRecord(info.id, task.trace, version, ReplayStatus.REPLAYABLE, "", str(answer["digest"]))
