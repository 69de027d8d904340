"""What a bundle tells about itself: the record of each kernel, and times of its stages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from ...database.reader import Reader
from ...database.schema.records import Record, SessionRecord
from ...devices.device import Device
from ...support.errors import BundleError
from ...support.hashing import digest_of
from ..format.documents import (
    MEASURED,
    KernelSource,
    MeasuredDocument,
    ProgramTimes,
    ProvenanceDocument,
    SourceSession,
    SourceTrial,
)
from ..format.file_digest import file_info
from ..format.manifest import MANIFEST
from ..format.reader import Bundle
from .planned_program import PlannedProgram


def make_provenance(programs: Sequence[PlannedProgram], store: Reader | None) -> ProvenanceDocument:
    """Return the document that names the record, the lender or the baseline of every kernel's program.

    ``store`` is the database that the records were read from, None for baselines only.
    """
    kept = {one.session_id: one for one in store.sessions()} if store is not None else {}
    sessions: dict[str, SourceSession] = {}
    told = {one.info.plan: tuple(_kernel_sources(one, store, kept, sessions)) for one in programs}
    return ProvenanceDocument(sessions, told)


def _kernel_sources(
    planned: PlannedProgram,
    store: Reader | None,
    kept: Mapping[int, SessionRecord],
    sessions: dict[str, SourceSession],
) -> Iterator[KernelSource]:
    """Yield where each kernel's program comes from; the sessions of records are added to ``sessions``."""
    assembled, kernels = planned.assembled, planned.kernels
    files = {(one.entry, assembled.sources[one.file]): one.file for one in assembled.plan.shaders}
    for kernel_id, choice in kernels.choices.items():
        program = planned.programs[kernel_id]
        shaders = [program.shaders[dispatch.shader] for dispatch in program.dispatches]
        record = choice.record or (choice.borrowed.record if choice.borrowed else None)
        trial = None
        if record is not None and store is not None:
            session = kept[record.session_id]
            sessions.setdefault(session.uid, _session(session, store, record))
            trial = _trial(session, record)
        yield KernelSource(
            name=kernels.capture.kernels[kernel_id].name,
            workload=kernel_id,
            program=choice.program.digest,
            shaders=tuple(dict.fromkeys(files[shader.entry, shader.source] for shader in shaders)),
            source="record" if choice.record else "borrowed" if choice.borrowed else "baseline",
            match=choice.borrowed.match.value if choice.borrowed else None,
            trial=trial,
        )


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


def store_measured(folder: Path, device: Device, programs: Mapping[str, ProgramTimes]) -> MeasuredDocument:
    """Add times of the stages to the bundle in ``folder``, in place of earlier ones.

    Args:
        folder: a whole bundle.
        device: what ran the stages.
        programs: the times, by the programs' plans.

    Raises:
        BundleError: the folder holds no bundle, or cannot be written.
    """
    made = MeasuredDocument(device.key, device.driver, _utc(datetime.now(timezone.utc)), dict(programs))
    manifest = Bundle.open(folder).manifest
    data = made.to_json()
    info = file_info(data)
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
