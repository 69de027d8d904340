"""Reading the pair of files that TVM's JSONDatabase keeps, each entry by a child process that it may take down."""

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
from .child_pool import Isolated, Refused
from .json_pair import CHILD, LIMIT_S, RECORDS, WORKLOADS, Report, answer

_LONGEST_LINE = 32 << 20
"""Characters of one entry that are read: real ones have some hundred thousand."""


@dataclass
class Imported:
    """What was read: ``added`` trials by state, ``known`` entries that were there, and what is opaque.

    ``workloads`` are those that could be read. ``opaque`` are (file, line from 1, why); ``kept`` of them are new to
    the database.
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
) -> Imported:
    """Adds what a JSONDatabase of TVM's keeps in ``folder``, as unverified trials of the device ``device_key``.

    ``runtime`` is how they were measured; None is what stock TVM does for each record's target. What has the same
    workload, schedule and times is not added twice. What cannot be read is kept as it is, and never offered. Nothing
    in the files is executed but TVM's own scheduling instructions, in a child process. SIGINT ends it after the
    present entry; what is done is committed, and the same call goes on from there.

    Raises:
        UsageError: a file is missing, or is not such a file at all; the device's key is none.
        DatabaseError: the database fails.
    """
    done = Imported(str(folder), device_key)
    if not all(device_key.partition(":")[::2]):
        raise UsageError(
            f"{device_key!r} is no device's key", "a backend and a model, as in cuda:nvidia-h200 or vulkan:llvmpipe"
        )
    paths = folder / WORKLOADS, folder / RECORDS
    for path in paths:
        if not path.is_file():
            raise UsageError(f"there is no {path.name} in {folder}", f"the pair is {WORKLOADS} and {RECORDS}")
    total = max(1, paths[1].stat().st_size)
    with Interrupts() as interrupts, Isolated(CHILD, limit_s) as child:
        importing = _Import(store, runtime, done, _Workloads(list(_lines(paths[0])), child), child)
        outcome = SessionOutcome.FAILED
        try:
            read = 0
            for position, line in _lines(paths[1]):
                if interrupts.requested:
                    break
                report(f"record {position}", min(1.0, read / total))
                importing.read(position, line)
                read += len(line) + 1
            else:
                importing.add_the_rest()
            done.interrupted = interrupts.requested
            outcome = SessionOutcome.INTERRUPTED if done.interrupted else SessionOutcome.COMPLETED
        finally:
            importing.trials.end(outcome)
    return done


class _Import:
    """One pair of files on its way into the database."""

    def __init__(
        self, store: Store, runtime: Runtime | None, done: Imported, workloads: _Workloads, child: Isolated
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
        """Adds the record in a line, unless it is there."""
        try:
            index, record = _record(line, len(self._workloads))
            info = self._workloads.get(index)
            question = {"ask": "read", "record": record}
            found = answer(self._child, question, self._workloads.subject(index), str(index))
        except Refused as refusal:
            self._keep(OpaqueEntry(OpaqueKind.RECORD, RECORDS, position, line, str(refusal)))
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

    def add_the_rest(self) -> None:
        """Adds the workloads that no record is of, too, and keeps those that cannot be read."""
        for index, (position, line) in enumerate(self._workloads.lines):
            try:
                self._store.add_workloads([self._workloads.get(index)])
                self._done.workloads += 1
            except Refused:
                self._keep(OpaqueEntry(OpaqueKind.WORKLOAD, WORKLOADS, position, line, self._workloads.why[index]))

    def _keep(self, entry: OpaqueEntry) -> None:
        self._done.opaque.append((entry.source, entry.position, entry.reason))
        self._done.kept += keep_opaque(self._store, [entry])


class _Workloads:
    """The workloads of a pair of files, each looked at when it is first asked for."""

    def __init__(self, lines: list[tuple[int, str]], child: Isolated) -> None:
        self.lines = lines
        self.why: dict[int, str] = {}
        self._infos: dict[int, WorkloadInfo] = {}
        self._child = child

    def __len__(self) -> int:
        return len(self.lines)

    def subject(self, index: int) -> dict[str, Any]:
        """What the child is to be sent of the workload; raises Refused where it is not JSON."""
        try:
            return {"subject": {"entry": json.loads(self.lines[index][1])}}
        except (ValueError, RecursionError) as error:
            raise Refused(f"it is not JSON: {error}") from None

    def get(self, index: int) -> WorkloadInfo:
        """What the database keeps of it; raises Refused where it cannot be read."""
        if index in self.why:
            raise Refused(f"its workload cannot be read: {self.why[index]}")
        if index not in self._infos:
            try:
                found = answer(self._child, {"ask": "workload"}, self.subject(index), str(index))["info"]
            except Refused as refusal:
                self.why[index] = str(refusal)
                return self.get(index)
            self._infos[index] = _info(found)
        return self._infos[index]


def _info(found: dict[str, Any]) -> WorkloadInfo:
    params = tuple(Param(name, tuple(shape), dtype) for name, shape, dtype in found["params"])
    forms = tuple(TvmForm(*form) for form in found["forms"])
    return WorkloadInfo(**{**found, "params": params, "forms": forms, "outputs": tuple(found["outputs"])})


def _record(line: str, workloads: int) -> tuple[int, Any]:
    """The index of its workload, and the record; raises Refused where the line has another form."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Refused(f"it is not JSON: {error}") from None
    if not (isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is int):
        raise Refused("it is not a number of a workload and a record")
    if not 0 <= entry[0] < workloads:
        raise Refused(f"its workload is not there: {WORKLOADS} has no such line")
    return entry[0], entry[1]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say anything, with their numbers from 1."""
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
