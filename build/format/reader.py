"""Opens a bundle folder. It may come from anywhere, so every file is checked against the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...support.enums import ComputePrecision
from ...support.errors import BundleError
from .manifest import MANIFEST, TOKENIZER, Manifest, ProgramInfo
from .plan import Plan
from .sampler_tables import AnySampler, SamplerRun, find_sampler, format_ranges, unpack_run

CHUNK = 16 << 20
"""Bytes that are read and hashed at a time."""


@dataclass(frozen=True, eq=False)
class BundleProgram:
    """One of a bundle's programs: what the manifest says of it, and its plan."""

    info: ProgramInfo
    plan: Plan


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle: manifest and plans are sound, and the other files exist with the right sizes.

    ``programs`` are in the manifest's order.
    """

    folder: Path
    manifest: Manifest
    programs: tuple[BundleProgram, ...]

    @staticmethod
    def open(folder: Path | str) -> Bundle:
        """Open the bundle in ``folder``; raise BundleError naming a file that is missing, cut short or damaged."""
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            where = "there is no folder" if not folder.is_dir() else f"there is no {MANIFEST} in"
            raise BundleError(f"{where} {folder}", "give the folder that `wgtune build -o` wrote")
        manifest = Manifest.from_json(path.read_bytes())
        for name, info in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise _damaged(folder, name, "is missing")
            if file.stat().st_size != info.nbytes:
                raise _damaged(folder, name, f"has {file.stat().st_size} bytes instead of {info.nbytes}")
        return Bundle(folder, manifest, tuple(_open_program(folder, manifest, info) for info in manifest.programs))

    def read(self, name: str) -> bytes:
        """Return the content of a listed file after checking its hash."""
        return _read(self.folder, self.manifest, name)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a listed file in chunks; raise BundleError after the last one if the hash is wrong."""
        digest = hashlib.sha256()
        with open(self.folder / name, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != self.manifest.files[name].sha256:
            raise _damaged(self.folder, name, "has the wrong SHA-256")

    def run(self, sampler: AnySampler, steps: int) -> SamplerRun:
        """Return the table of ``sampler`` for ``steps`` inference steps; BundleError lists what the bundle offers."""
        table = self.manifest.schedulers.tables.get(sampler.value)
        if table is None:
            have = ", ".join(self.manifest.schedulers.tables)
            raise BundleError(f"the bundle has no scheduler {sampler.value!r}", f"it has: {have}")
        if steps not in table.runs:
            raise BundleError(
                f"the bundle's scheduler {sampler.value} has no run of {steps} steps",
                f"it has: {format_ranges(sorted(table.runs))}",
            )
        run = table.runs[steps]
        return unpack_run(np.frombuffer(self.read(table.file), "<f4"), run, table.noise == "brownian")

    def programs_of(self, compute: ComputePrecision | None) -> tuple[BundleProgram, ...]:
        """Return the programs with kernels of this precision, all for None; BundleError names what the bundle has."""
        found = tuple(one for one in self.programs if compute in (None, one.info.compute))
        if not found and compute is not None:
            have = ", ".join(dict.fromkeys(one.info.compute.value for one in self.programs))
            raise BundleError(
                f"the bundle has no program for {compute.value}",
                f"it has: {have}; `wgtune build --compute auto` makes one for each",
            )
        return found

    @property
    def default_sampler(self) -> AnySampler:
        """The sampler of the model's own scheduler."""
        return find_sampler(self.manifest.schedulers.default)

    @property
    def nbytes(self) -> int:
        """Bytes of all listed files."""
        return sum(info.nbytes for info in self.manifest.files.values())


def is_bundle(folder: Path) -> bool:
    """Return whether ``folder`` holds a bundle of any format version, complete or not."""
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"format", "wgtune", "files"} <= set(data)


def _open_program(folder: Path, manifest: Manifest, info: ProgramInfo) -> BundleProgram:
    """Read a program's plan; raise BundleError where it is damaged, or uses what the program's files lack."""
    plan = Plan.from_json(_read(folder, manifest, info.plan), info.plan)
    files = manifest.files_of(info)
    for named in (
        *(shader.file for shader in plan.shaders),
        *(buffer.shard for buffer in plan.buffers if buffer.shard),
        *(table.file for table in manifest.schedulers.tables.values()),
        TOKENIZER,
    ):
        if named not in files:
            raise _damaged(folder, named, f"is used by {info.plan} but not listed in the manifest")
    for buffer in plan.buffers:
        if buffer.shard and files[buffer.shard].nbytes > buffer.nbytes:
            raise _damaged(folder, info.plan, f"gives {buffer.shard} a buffer that is too small")
    return BundleProgram(info, plan)


def _read(folder: Path, manifest: Manifest, name: str) -> bytes:
    if name not in manifest.files:
        raise _damaged(folder, name, "is not listed in the manifest")
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest.files[name].sha256:
        raise _damaged(folder, name, "has the wrong SHA-256")
    return data


def _damaged(folder: Path, name: str, what: str) -> BundleError:
    return BundleError(f"the bundle in {folder} is damaged: {name} {what}", "copy or build the bundle again")
