"""Export of schedules as the two files of TVM's JSONDatabase; a child process applies each schedule first."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ...database.queries.ranked_schedules import RankedSchedules
from ...database.reader import Reader
from ...database.schema.records import Runtime, WorkloadInfo
from ...database.sql_reader import installed_tvm
from ...support.errors import DatabaseError, UsageError
from .json_pair import CHILD, LIMIT_S, RECORDS, WORKLOADS, Report, answer
from .restarting_child import EntryFailed, RestartingChild


@dataclass
class ExportSummary:
    """The result of an export; ``skipped`` holds (kernel name, reason) of what the installed TVM cannot apply."""

    folder: str
    device: str
    runtime: Runtime
    workloads: int = 0
    records: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


def only_runtime(reader: Reader, device_key: str, *, unverified: bool = False) -> Runtime:
    """Return the runtime through which a device's schedules were measured.

    Raises:
        UsageError: the device has schedules of no runtime, or of more than one.
    """
    found = [one for one in Runtime if len(RankedSchedules(reader, device_key, one, unverified=unverified))]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(one.value for one in found)
        raise UsageError(f"{device_key} was measured in more than one way: {names}", "name one with --runtime")
    raise UsageError(
        f"{reader.name} has nothing to export: no verified schedules of {device_key}",
        "`wgtune db info` shows devices and trials; --unverified exports what nobody verified, too",
    )


def export_pair(
    reader: Reader,
    folder: Path,
    device_key: str,
    runtime: Runtime,
    *,
    top: int | None = None,
    unverified: bool = False,
    report: Report = lambda what, done: None,
    limit_s: float = LIMIT_S,
) -> ExportSummary:
    """Write the schedules of a device as the pair of files that stock ``JSONDatabase(work_dir=folder)`` reads.

    Names in workloads follow from positions. A record's times are all samples, in seconds. The files appear when both
    are complete.

    Args:
        reader: where the schedules are read.
        folder: where the files are written; made where missing.
        device_key: the device on which the schedules were measured.
        runtime: the runtime through which they were measured.
        top: how many schedules of each kernel, the fastest first; None for all.
        unverified: whether schedules whose results were never verified are exported too.
        report: called before each kernel.
        limit_s: seconds that TVM may take for one schedule.

    Raises:
        UsageError: ``folder`` has such a file already, or there is nothing to write.
        DatabaseError: the database fails, or the files cannot be written.
    """
    for name in (WORKLOADS, RECORDS):
        if (folder / name).exists():
            raise UsageError(f"{folder / name} exists", "name another folder: TVM adds to what it finds")
    ranked = RankedSchedules(reader, device_key, runtime, unverified=unverified)
    ids = ranked.workloads()
    if not ids:
        raise UsageError(
            f"{reader.name} has nothing to export: no schedules of {device_key} through {runtime.value}",
            "`wgtune db info` shows what there is; --unverified exports what nobody verified, too",
        )
    infos = reader.workloads(ids)
    done = ExportSummary(str(folder), device_key, runtime)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
            with (
                open(Path(scratch) / WORKLOADS, "w", encoding="utf-8") as workloads,
                open(Path(scratch) / RECORDS, "w", encoding="utf-8") as records,
                RestartingChild(CHILD, limit_s) as child,
            ):
                for number, workload_id in enumerate(ids):
                    report(infos[workload_id].name, number / len(ids))
                    _export_kernel(infos[workload_id], ranked, top, child, (workloads, records), done)
            if not done.records:
                raise UsageError(
                    f"the installed TVM can apply none of the schedules of {device_key}: {done.skipped[0][1]}"
                )
            for name in (WORKLOADS, RECORDS):
                os.replace(Path(scratch) / name, folder / name)
    except OSError as error:
        raise DatabaseError(f"{folder} cannot be written: {error.strerror or error}", "name another folder") from error
    return done


def _export_kernel(
    info: WorkloadInfo,
    ranked: RankedSchedules,
    top: int | None,
    child: RestartingChild,
    files: tuple[IO[str], IO[str]],
    done: ExportSummary,
) -> None:
    form = next((form for form in info.forms if form.tvm_version == installed_tvm()), None)
    if form is None:
        done.skipped.append((info.name, f"its kernel is not stored as TVM {installed_tvm()} writes it"))
        return
    subject = {"subject": {"text": info.text, "module": form.module}}
    workloads, records = files
    entry: Any = None
    for one in islice(ranked.of(info.id), top):
        question = {"ask": "write", "trace": one.trace, "seconds": list(one.samples_s), "target": one.target}
        try:
            record = answer(child, question, subject, info.id)["record"]
            if entry is None:
                entry = answer(child, {"ask": "workload"}, subject, info.id)["entry"]
                _write_line(workloads, entry)
                done.workloads += 1
        except EntryFailed as failure:
            done.skipped.append((info.name, str(failure)))
            continue
        _write_line(records, [done.workloads - 1, record])
        done.records += 1


def _write_line(file: IO[str], value: Any) -> None:
    file.write(json.dumps(value, separators=(",", ":")) + "\n")
