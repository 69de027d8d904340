"""Import of the two files of TVM's JSONDatabase; a child process reads each entry, which may crash it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...database.exchange.opaque import OpaqueEntry, keep_opaque
from ...database.exchange.unverified import ForeignTrials, known_results, stock_runtime, timed
from ...database.schema.records import OpaqueKind, Param, Runtime, SessionOutcome, TvmForm, WorkloadInfo
from ...database.store import Store
from ...support.errors import UsageError
from ...support.signals import Interrupts
from .json_pair import CHILD, LIMIT_S, RECORDS, WORKLOADS, Report, answer
from .restarting_child import EntryFailed, RestartingChild

_LONGEST_LINE = 32 << 20
"""Most characters of one entry; real ones have some hundred thousand."""


@dataclass
class ImportSummary:
    """The result of an import.

    ``workloads`` counts those that could be read, ``added`` the new trials by state, and ``known`` the records that the
    database already had. ``opaque`` holds (file, line from 1, reason) of entries that cannot be read; ``kept`` counts
    those of them that are new to the database. ``interrupted`` says whether SIGINT ended it.
    """

    folder: str
    device: str
    workloads: int = 0
    added: dict[str, int] = field(default_factory=dict)
    known: int = 0
    opaque: list[tuple[str, int, str]] = field(default_factory=list)
    kept: int = 0
    interrupted: bool = False


def import_pair(
    store: Store,
    folder: Path,
    device_key: str,
    runtime: Runtime | None = None,
    *,
    report: Report = lambda what, done: None,
    limit_s: float = LIMIT_S,
) -> ImportSummary:
    """Add the records of a JSONDatabase in ``folder`` as unverified trials.

    A record with the same workload, schedule and times is not added twice. An entry that cannot be read is stored as
    text and never used. Only TVM's scheduling instructions are executed, in a child process. SIGINT ends the import
    after the present entry; what is done is committed, and the same call goes on from there.

    Args:
        store: the database to add to.
        folder: where the two files lie.
        device_key: the device on which the records were measured.
        runtime: the runtime through which they were measured; None for that which stock TVM uses for each target.
        report: called before each record.
        limit_s: seconds that TVM may take for one entry.

    Raises:
        UsageError: a file is missing or has another format, or ``device_key`` is no device's key.
        DatabaseError: the database fails.
    """
    done = ImportSummary(str(folder), device_key)
    if not all(device_key.partition(":")[::2]):
        raise UsageError(
            f"{device_key!r} is no device's key", "a backend and a model, as in cuda:nvidia-h200 or vulkan:llvmpipe"
        )
    paths = folder / WORKLOADS, folder / RECORDS
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no {path.name} in {folder}", f"the pair is {WORKLOADS} and {RECORDS}")
    total = max(1, paths[1].stat().st_size)
    with Interrupts() as interrupts, RestartingChild(CHILD, limit_s) as child:
        importer = _Importer(store, runtime, done, _WorkloadLines(list(_lines(paths[0])), child), child)
        outcome = SessionOutcome.FAILED
        try:
            read = 0
            for position, line in _lines(paths[1]):
                if interrupts.requested:
                    break
                report(f"record {position}", min(1.0, read / total))
                importer.read(position, line)
                read += len(line) + 1
            else:
                importer.add_unused_workloads()
            done.interrupted = interrupts.requested
            outcome = SessionOutcome.INTERRUPTED if done.interrupted else SessionOutcome.COMPLETED
        finally:
            importer.trials.end(outcome)
    return done


class _Importer:
    """Adds the records of one pair of files to the database."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime | None,
        done: ImportSummary,
        workloads: _WorkloadLines,
        child: RestartingChild,
    ) -> None:
        described = {info.key: info for info in store.devices()}
        reason = f"import of {Path(done.folder).name}"
        self.trials = ForeignTrials(store, done.device, reason, described.get(done.device))
        self._store = store
        self._runtime = runtime
        self._done = done
        self._workloads = workloads
        self._child = child
        self._known: dict[str, set[tuple[str, tuple[float, ...]]]] = {}

    def read(self, position: int, line: str) -> None:
        """Add the record in a line, unless the database has it."""
        try:
            index, record = _record(line, len(self._workloads))
            info = self._workloads.get(index)
            question = {"ask": "read", "record": record}
            found = answer(self._child, question, self._workloads.subject(index), str(index))
        except EntryFailed as failure:
            self._keep(OpaqueEntry(OpaqueKind.RECORD, RECORDS, position, line, str(failure)))
            return
        known = self._known.get(info.id)
        if known is None:
            known = self._known[info.id] = known_results(self._store, self._done.device, info.id)
        trace, seconds, target = str(found["trace"]), found["seconds"], found["target"]
        if (trace, timed(seconds)) in known:
            self._done.known += 1
            return
        known.add((trace, timed(seconds)))
        kind = str((target or {}).get("kind", ""))
        state = self.trials.add(info, trace, seconds, target, self._runtime or stock_runtime(kind))
        self._done.added[state.value] = self._done.added.get(state.value, 0) + 1

    def add_unused_workloads(self) -> None:
        """Add the workloads without a record too, and store as text those that cannot be read."""
        for index, (position, line) in enumerate(self._workloads.lines):
            try:
                self._store.add_workloads([self._workloads.get(index)])
                self._done.workloads += 1
            except EntryFailed:
                self._keep(OpaqueEntry(OpaqueKind.WORKLOAD, WORKLOADS, position, line, self._workloads.reasons[index]))

    def _keep(self, entry: OpaqueEntry) -> None:
        self._done.opaque.append((entry.source, entry.position, entry.reason))
        self._done.kept += keep_opaque(self._store, [entry])


class _WorkloadLines:
    """The workloads of a pair of files, each read when it is first asked for."""

    def __init__(self, lines: list[tuple[int, str]], child: RestartingChild) -> None:
        self.lines = lines
        self.reasons: dict[int, str] = {}
        self._infos: dict[int, WorkloadInfo] = {}
        self._child = child

    def __len__(self) -> int:
        return len(self.lines)

    def subject(self, index: int) -> dict[str, Any]:
        """Return the line of a workload as the child takes it; raises EntryFailed where it is not JSON."""
        try:
            return {"subject": {"entry": json.loads(self.lines[index][1])}}
        except (ValueError, RecursionError) as error:
            raise EntryFailed(f"it is not JSON: {error}") from None

    def get(self, index: int) -> WorkloadInfo:
        """Return a workload as the database keeps it; raises EntryFailed where it cannot be read."""
        if index in self.reasons:
            raise EntryFailed(f"its workload cannot be read: {self.reasons[index]}")
        if index not in self._infos:
            try:
                found = answer(self._child, {"ask": "workload"}, self.subject(index), str(index))["info"]
            except EntryFailed as failure:
                self.reasons[index] = str(failure)
                return self.get(index)
            self._infos[index] = _info(found)
        return self._infos[index]


def _info(found: dict[str, Any]) -> WorkloadInfo:
    params = tuple(Param(name, tuple(shape), dtype) for name, shape, dtype in found["params"])
    forms = tuple(TvmForm(*form) for form in found["forms"])
    return WorkloadInfo(**{**found, "params": params, "forms": forms, "outputs": tuple(found["outputs"])})


def _record(line: str, workloads: int) -> tuple[int, Any]:
    """Return the workload's index and the record in a line; raises EntryFailed where the line has another form."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EntryFailed(f"it is not JSON: {error}") from None
    if not (isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is int):
        raise EntryFailed("it is not a number of a workload and a record")
    if not 0 <= entry[0] < workloads:
        raise EntryFailed(f"its workload is not there: {WORKLOADS} has no such line")
    return entry[0], entry[1]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers, from 1."""
    try:
        with open(path, encoding="utf-8") as file:
            for position, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), ""), 1):
                if len(line) == _LONGEST_LINE:
                    raise UsageError(f"{path} is not a file of TVM's JSONDatabase: line {position} has no end")
                if line.strip():
                    yield position, line.strip()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not a file of TVM's JSONDatabase: it is no text in UTF-8 ({error.reason})"
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
