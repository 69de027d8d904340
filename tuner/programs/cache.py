"""Programs that kernels become, kept on disk: TVM takes up to seconds to lower a schedule, reading takes a millisecond.

A file is named by the SHA-256 of all that shapes its program: kernel, schedule, tier, the code that lowers, and TVM. So
none becomes stale, and those that nothing uses any more are deleted once the folder has grown.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

from ...devices.limits import Tier
from ...devices.program import Program
from ...devices.quirks import NO_QUIRKS, Quirks
from ...support.paths import cache_dir
from ..capture.code_digest import code_digest
from ..codegen.baseline_schedules import baseline_schedules
from ..codegen.traces import replay
from ..codegen.wgsl import EmitError, emit_wgsl
from ..ir import Kernel
from ..reference.lru_files import evict, used

_MOST_BYTES = 256 << 20
"""Bytes of the folder: some 25,000 programs, a hundred models."""

_LOOK_EVERY = 500
"""Programs that a process keeps between two looks at the folder's size."""

_TOOLS = ("apache-tvm", "apache-tvm-ffi")


def replayed_program(kernel: Kernel, trace: str, tier: Tier) -> Program:
    """Return the program of a stored schedule.

    Raises:
        WgtuneError: the schedule does not apply to the kernel, or does not become WebGPU within the tier.
    """
    key = _key(kernel, tier, {"trace": trace})
    kept = _load(key)
    if kept is not None:
        return Program.from_json(kept["program"])
    program = emit_wgsl(replay(kernel, trace).mod, tier)
    _save(key, {"program": program.to_json()})
    return program


def untuned_programs(kernel: Kernel, tier: Tier, quirks: Quirks = NO_QUIRKS) -> Iterator[Program | EmitError]:
    """Yield what each untuned schedule becomes, the best first: a program, or why it is none within the tier."""
    schedules = None
    for number in count():
        key = _key(kernel, tier, {"untuned": number, "quirks": asdict(quirks)})
        kept = _load(key)
        if kept is None:
            if schedules is None:
                schedules = islice(baseline_schedules(kernel, tier, quirks), number, None)
            kept = _lowered(next(schedules, None), tier)
            _save(key, kept)
        elif schedules is not None:
            next(schedules, None)
        if "program" in kept:
            yield Program.from_json(kept["program"])
        elif "error" in kept:
            yield EmitError(kept["error"], kept["hint"])
        else:
            return


def _lowered(schedule: Any, tier: Tier) -> dict[str, Any]:
    """Return what is kept of a schedule; nothing of None, which stands for the end of the schedules."""
    if schedule is None:
        return {}
    try:
        return {"program": emit_wgsl(schedule.mod, tier).to_json()}
    except EmitError as error:
        return {"error": error.message, "hint": error.hint}


def _key(kernel: Kernel, tier: Tier, schedule: dict[str, Any]) -> str:
    shaped_by = {
        "code": code_digest(__name__),
        "tools": {name: version(name) for name in _TOOLS},
        "kernel": kernel.id,
        "limits": tier.limits,
        "features": sorted(tier.features),
        **schedule,
    }
    return hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()


def _path(key: str) -> Path:
    return cache_dir() / "programs" / f"{key}.json.gz"


def _load(key: str) -> dict[str, Any] | None:
    """Return what is kept under a key; None where the file is missing or damaged."""
    path = _path(key)
    try:
        kept: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        if "program" in kept:
            Program.from_json(kept["program"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    used(path)
    return kept


def _save(key: str, kept: dict[str, Any]) -> None:
    """Write a file that readers see whole or not at all; without room for it, lowering again is all that it costs."""
    global _saved
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(gzip.compress(json.dumps(kept).encode(), 1))
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if _saved % _LOOK_EVERY == 0:
            evict(path.parent, _MOST_BYTES)
        _saved += 1
    except OSError:
        return


_saved = 0
