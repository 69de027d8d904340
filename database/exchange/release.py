"""Releases: the best records of a database as one small file that is never written to, beside a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select

from ...support.enums import Runtime, TrialState
from ...support.errors import DatabaseError, UsageError
from ..schema.engine import RELEASE_SUFFIX
from ..schema.records import UNNAMED_DRIVER, TrialKind
from ..schema.rows import (
    alias,
    compiled_shader,
    device,
    model,
    model_kernel,
    opaque,
    program_shader,
    release,
    replay,
    schedule,
    schedule_features,
    session,
    trial,
    workload,
)
from ..sql_helpers import matching
from ..sql_reader import SqlReader, installed_tvm, is_stale, is_superseded
from ..store import Store
from .merge import Merged, absorb
from .portable_rows import digest_rows

LICENCE = "Apache-2.0"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Coverage:
    """How many kernels a release has verified records of: per device, runtime and tier."""

    device: str
    runtime: Runtime
    tier: str
    kernels: int
    records: int


@dataclass(frozen=True)
class Manifest:
    """What is published beside a release file. ``sha256`` is of the file's bytes, ``content`` as `content_digest`.

    ``stale`` counts the records that were left out because the installed TVM does not apply them any more.
    """

    name: str
    file: str
    sha256: str
    content: str
    created: str
    settings: Mapping[str, Any]
    covered: list[Coverage]
    models: list[str]
    drivers: list[str]
    toolchains: list[Mapping[str, str]]
    stale: int
    wgtune: str
    tvm: str
    licence: str = LICENCE


def write_release(
    source: SqlReader,
    name: str,
    folder: Path,
    *,
    top: int = 3,
    devices: Collection[str] = (),
    tiers: Collection[str] = (),
    keep_host: bool = False,
) -> tuple[Path, Manifest]:
    """Write ``<name>-<content>.wgtune.db``, its manifest ``….json`` and a page ``….md`` into ``folder``.

    It holds, for each kernel, device, runtime and tier, the ``top`` fastest verified schedules and the best baseline,
    with their sessions (without host and process unless ``keep_host``). The same content gives the same bytes.
    Returns the file's path and the manifest.

    Raises:
        UsageError: a bad name, a device that the database does not have, or nothing to release.
        DatabaseError: reading or writing failed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a release", "use letters, digits, dots, dashes: wgtune db release 2026.11"
        )
    known = {info.key for info in source.devices()}
    if unknown := sorted(set(devices) - known):
        raise UsageError(f"{source.name} has no device {unknown[0]!r}", f"there are: {', '.join(sorted(known))}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".release-", dir=folder) as scratch:
            return _write(source, name, folder, Path(scratch), top, sorted(devices), sorted(tiers), keep_host)
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(
            f"the release cannot be written to {folder}: {error}", "name another with --output"
        ) from None


def _write(
    source: SqlReader,
    name: str,
    folder: Path,
    scratch: Path,
    top: int,
    devices: list[str],
    tiers: list[str],
    keep_host: bool,
) -> tuple[Path, Manifest]:
    settings = {"top": top, "devices": devices, "tiers": tiers, "host": keep_host}
    with Store.open(str(scratch / "made.db")) as made:
        with source.reading() as reading, made.writing() as writing:
            chosen = _Chosen(reading, top, devices, tiers, keep_host)
            if not chosen.trials:
                raise UsageError(
                    f"{source.name} has no verified records of these devices and tiers to release",
                    "wgtune tune makes some; wgtune report coverage says what there is",
                )
            absorb(reading, writing, Merged(made.name), chosen.edit)
            content = digest_rows(writing)
            # Not the clock: the same content is to give the same bytes.
            created = writing.execute(select(func.max(trial.c.ended))).scalar_one()
            values = {"name": name, "created": created, "content": content, "settings": settings}
            writing.execute(insert(release).values(**values))
        with made.reading() as reading:
            described = _described(reading)
    path = folder / f"{name}-{content[:12]}{RELEASE_SUFFIX}"
    packed = scratch / "packed.db"
    with closing(sqlite3.connect(scratch / "made.db")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM INTO ?", (str(packed),))
    packed.chmod(0o444)
    os.replace(packed, path)
    manifest = Manifest(
        name=name,
        file=path.name,
        sha256=file_digest(path),
        content=content,
        created=created.isoformat(),
        settings=settings,
        stale=chosen.stale,
        wgtune=metadata.version("wgtune"),
        tvm=installed_tvm(),
        **described,
    )
    manifest_path(path).write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    path.with_name(path.name.removesuffix(".db") + ".md").write_text(_page(manifest), encoding="utf-8")
    return path, manifest


class _Chosen:
    """Which rows of a database go into a release: the chosen trials and what they refer to."""

    def __init__(
        self, connection: Connection, top: int, devices: Collection[str], tiers: Collection[str], keep_host: bool
    ) -> None:
        self.keep_host = keep_host
        query = (
            select(
                *(trial.c[name] for name in ("id", "device_id", "runtime", "workload_id", "schedule_id", "session_id")),
                trial.c.kind,
                trial.c.program_digest,
                session.c.tier,
            )
            .join_from(trial, session)
            .join(device, device.c.id == trial.c.device_id)
            .where(trial.c.state == TrialState.OK, trial.c.kind != TrialKind.CHECK, ~is_superseded())
            .order_by(trial.c.latency_s, trial.c.started, session.c.uid, trial.c.number)
        )
        if devices:
            query = query.where(device.c.key.in_(devices))
        if tiers:
            query = query.where(session.c.tier.in_(tiers))
        self.stale = connection.execute(
            select(func.count()).select_from(query.where(is_stale()).order_by(None).subquery())
        ).scalar_one()
        taken: Counter[tuple[Any, ...]] = Counter()
        seen: set[tuple[Any, ...]] = set()
        self.trials: set[int] = set()
        self._programs: set[str] = set()
        ids: dict[Table, set[int]] = {table: set() for table in (device, workload, session, schedule)}
        for row in connection.execution_options(yield_per=1000).execute(query.where(~is_stale())):
            group = (row.device_id, row.runtime, row.tier, row.workload_id)
            is_baseline = row.kind is TrialKind.BASELINE
            wanted = is_baseline and (*group, "baseline") not in seen
            if (*group, row.schedule_id) not in seen and taken[group] < top:
                taken[group] += 1
                wanted = True
            if not wanted:
                continue
            seen.add((*group, row.schedule_id))
            if is_baseline:
                seen.add((*group, "baseline"))
            self.trials.add(row.id)
            self._programs.add(row.program_digest)
            for table in ids:
                ids[table].add(getattr(row, f"{table.name}_id"))
        used = ids[workload]
        kernels = connection.execute(select(model_kernel.c.model_id, model_kernel.c.workload_id)).all()
        models = {row.model_id for row in kernels if row.workload_id in used}
        # A model is shown with all its kernels, those without a record too.
        ids[workload] = used | {row.workload_id for row in kernels if row.model_id in models}
        self._ids = {**ids, model: models, trial: self.trials}
        programs = sorted((digest,) for digest in self._programs)
        self._schedules = self._digests(connection, schedule)
        self._workloads = self._digests(connection, workload)
        self._shaders = {
            digest
            for match in matching([program_shader.c.program_digest], programs)
            for digest in connection.execute(select(program_shader.c.shader_digest).where(match)).scalars()
        }

    def _digests(self, connection: Connection, table: Table) -> set[str]:
        """Return the digests of the chosen rows of a table."""
        ids = sorted((row_id,) for row_id in self._ids[table])
        return {
            digest
            for match in matching([table.c.id], ids)
            for digest in connection.execute(select(table.c.digest).where(match)).scalars()
        }

    def edit(self, table: Table, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return the row as it is released; None where it is left out."""
        if table in (alias, opaque):
            return None  # of the database's owner, not of the records
        if table is program_shader:
            return row if row["program_digest"] in self._programs else None
        if table is compiled_shader:
            return row if row["shader_digest"] in self._shaders else None
        if table is schedule_features:
            released = row["schedule_digest"] in self._schedules and row["workload_digest"] in self._workloads
            return row if released else None
        if table in self._ids and row["id"] not in self._ids[table]:
            return None
        parents: tuple[Table, ...] = (model, workload) if table is model_kernel else ()
        if table.name == "workload_form":
            parents = (workload,)
        if table is replay:
            parents = (workload, schedule)
        if any(row[f"{parent.name}_id"] not in self._ids[parent] for parent in parents):
            return None
        if table is session and not self.keep_host:
            return row | {"host": "", "pid": 0}
        return row


def _described(connection: Connection) -> dict[str, Any]:
    covered = (
        select(
            device.c.key,
            trial.c.runtime,
            session.c.tier,
            func.count(trial.c.workload_id.distinct()),
            func.count(),
        )
        .join_from(trial, session)
        .join(device, device.c.id == trial.c.device_id)
        .group_by(device.c.key, trial.c.runtime, session.c.tier)
        .order_by(device.c.key, trial.c.runtime, session.c.tier)
    )
    sessions = connection.execute(select(session.c.driver, session.c.toolchain)).all()
    toolchains = {json.dumps(row.toolchain, sort_keys=True) for row in sessions}
    return {
        "covered": [Coverage(*row) for row in connection.execute(covered)],
        "models": sorted(set(connection.execute(select(model.c.name)).scalars())),
        "drivers": sorted({row.driver for row in sessions}),
        "toolchains": [json.loads(toolchain) for toolchain in sorted(toolchains)],
    }


def manifest_path(path: Path) -> Path:
    """Return the path of a release file's manifest."""
    return path.with_name(path.name.removesuffix(".db") + ".json")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def release_problems(path: Path, connection: Connection) -> list[str]:
    """Return the contradictions between a release file, its own description and its manifest.

    Empty for a database that is no release. ``connection`` reads the file.
    """
    said = connection.execute(select(release.c.content, release.c.name)).first()
    if said is None:
        return [f"{path} is named as a release, but does not say that it is one"] if _named(path) else []
    problems = []
    if digest_rows(connection) != said.content:
        problems.append(f"{path}: its content is not that of the release {said.name}, whose SHA-256 is {said.content}")
    beside = manifest_path(path)
    if not _named(path) or not beside.exists():
        return problems
    try:
        manifest = json.loads(beside.read_text(encoding="utf-8"))
        expected = (manifest["sha256"], manifest["content"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [*problems, f"{beside} is no manifest of a release"]
    if expected != (file_digest(path), said.content):
        problems.append(f"{path}: its SHA-256 is not the one in {beside.name}")
    return problems


def _named(path: Path) -> bool:
    return path.name.endswith(RELEASE_SUFFIX)


def _page(manifest: Manifest) -> str:
    day = datetime.fromisoformat(manifest.created).date()
    lines = [
        f"# {manifest.name}",
        "",
        f"Verified records up to {day}, made by wgtune {manifest.wgtune} with TVM {manifest.tvm}. "
        f"Licence: {manifest.licence}.",
        "",
        "| device | measured through | tier | kernels | records |",
        "|---|---|---|---:|---:|",
        *(
            f"| {_cell(row.device)} | {row.runtime.value} | {_cell(row.tier)} | {row.kernels} | {row.records} |"
            for row in manifest.covered
        ),
        "",
        f"Models: {', '.join(map(_cell, manifest.models)) or 'none'}. Drivers: "
        f"{', '.join(_cell(driver or UNNAMED_DRIVER) for driver in manifest.drivers)}. "
        f"Stale records left out: {manifest.stale}.",
        "",
        f"`{manifest.file}` has the SHA-256 `{manifest.sha256}`, its content `{manifest.content}`. "
        f"`wgtune db check --db {manifest.file}` compares both.",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Escape text for a Markdown table, since names come from drivers."""
    return "".join(f"\\{ch}" if ch in "\\|`*_<>[]" else ch if ch.isprintable() else " " for ch in text)
