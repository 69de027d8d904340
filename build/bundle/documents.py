"""What a bundle tells about itself: the record of each kernel, and times of its stages."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from ...database.reader import Reader
from ...database.schema.records import Record, SessionRecord
from ...devices.device import Device
from ...devices.program import Program
from ...support.errors import BundleError
from ...support.hashing import digest_of
from ...tuner.ir import Capture
from ..format.documents import (
    MEASURED,
    KernelSource,
    MeasuredDocument,
    ProvenanceDocument,
    SourceSession,
    SourceTrial,
    StageTime,
)
from ..format.manifest import MANIFEST, FileInfo
from ..format.reader import Bundle
from .assembly import Assembled
from .program_choice import ProgramChoice


def make_provenance(
    capture: Capture,
    choices: Mapping[str, ProgramChoice],
    programs: Mapping[str, Program],
    assembled: Assembled,
    store: Reader | None,
) -> ProvenanceDocument:
    """Return the document that names the record, the lender or the baseline of every kernel's program.

    Args:
        capture: the kernels.
        choices: where their programs come from, by kernel id; the document keeps this order.
        programs: the programs as they are in the plan, with shared shaders.
        assembled: the plan.
        store: the database that the records were read from, None for baselines only.
    """
    kept = {one.session_id: one for one in store.sessions()} if store is not None else {}
    files = {(one.entry, assembled.sources[one.file]): one.file for one in assembled.plan.shaders}
    sessions: dict[str, SourceSession] = {}
    kernels = []
    for kernel_id, choice in choices.items():
        program = programs[kernel_id]
        shaders = [program.shaders[dispatch.shader] for dispatch in program.dispatches]
        record = choice.record or (choice.borrowed.record if choice.borrowed else None)
        trial = None
        if record is not None and store is not None:
            session = kept[record.session_id]
            sessions.setdefault(session.uid, _session(session, store, record))
            trial = _trial(session, record)
        kernels.append(
            KernelSource(
                name=capture.kernels[kernel_id].name,
                workload=kernel_id,
                program=choice.program.digest,
                shaders=tuple(dict.fromkeys(files[shader.entry, shader.source] for shader in shaders)),
                source="record" if choice.record else "borrowed" if choice.borrowed else "baseline",
                match=choice.borrowed.match.value if choice.borrowed else None,
                trial=trial,
            )
        )
    return ProvenanceDocument(sessions, tuple(kernels))


def _session(session: SessionRecord, store: Reader, record: Record) -> SourceSession:
    origin = store.origin(record)
    # Folders and servers are nobody's business but the builder's.
    database = origin.release or Path(origin.database.partition("?")[0]).name
    info = session.info
    return SourceSession(info.device.key, info.driver, dict(info.toolchain), _utc(session.started), database)


def _trial(session: SessionRecord, record: Record) -> SourceTrial:
    return SourceTrial(
        session=session.uid,
        number=record.number,
        kind=record.kind.value,
        schedule=digest_of(record.trace),
        program=record.program_digest,
        latency_s=record.latency_s,
        ended=_utc(record.created),
    )


def store_measured(
    folder: Path, device: Device, stages: Sequence[StageTime], records_s: Mapping[str, float]
) -> MeasuredDocument:
    """Add times of the stages to the bundle in ``folder``, in place of earlier ones.

    Args:
        folder: a whole bundle.
        device: what ran the stages.
        stages: their times.
        records_s: sums of the kernels' records in seconds, by stage.

    Raises:
        BundleError: the folder holds no bundle, or cannot be written.
    """
    made = MeasuredDocument(device.key, device.driver, _utc(datetime.now(timezone.utc)), tuple(stages), dict(records_s))
    manifest = Bundle.open(folder).manifest
    data = made.to_json()
    info = FileInfo(len(data), hashlib.sha256(data).hexdigest())
    listed = replace(
        manifest,
        files=dict(sorted({**manifest.files, MEASURED: info}.items())),
        documents=tuple(sorted({*manifest.documents, MEASURED})),
    )
    try:
        # The manifest last: until then it lists the earlier times, or none.
        for name, content in ((MEASURED, data), (MANIFEST, listed.to_json())):
            partial = folder / f".{name}.partial-{os.getpid()}"
            partial.write_bytes(content)
            partial.replace(folder / name)
    except OSError as error:
        raise BundleError(f"cannot write the times into {folder}: {error.strerror}", "is the disk full?") from error
    return made


def _utc(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
