"""Programs that kernels become, kept on disk: TVM takes up to seconds to lower a schedule, reading takes a millisecond.

A file is named by the SHA-256 of all that shapes its program: kernel, schedule, tier, the code that lowers, and TVM. So
none becomes stale, and those that nothing uses any more are deleted once the folder has grown.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

from tvm.s_tir import Schedule

from ...devices.limits import Tier
from ...devices.program import Program
from ...devices.quirks import NO_QUIRKS, Quirks
from ...support.paths import cache_dir, evict, replaced_file, used
from ..capture.code_digest import code_digest
from ..codegen.baseline_schedules import baseline_schedules
from ..codegen.traces import replay
from ..codegen.wgsl import EmitError, emit_wgsl
from ..ir import Kernel

_MOST_BYTES = 256 << 20
"""Bytes of the folder: some 25,000 programs, a hundred models."""

_LOOK_EVERY = 500
"""Programs that a process keeps between two looks at the folder's size."""

_TOOLS = ("apache-tvm", "apache-tvm-ffi")

_Kept = Program | EmitError | None
"""What a schedule becomes; None stands for the end of a kernel's untuned schedules."""


def replayed_program(kernel: Kernel, trace: str, tier: Tier) -> Program:
    """Return the program of a stored schedule.

    Raises:
        WgtuneError: the schedule does not apply to the kernel, or does not become WebGPU within the tier.
    """
    path = _path(kernel, tier, {"trace": trace})
    with contextlib.suppress(_Missing):
        if isinstance(kept := _load(path), Program):
            return kept
    program = emit_wgsl(replay(kernel, trace).mod, tier)
    _save(path, program)
    return program


def untuned_programs(kernel: Kernel, tier: Tier, quirks: Quirks = NO_QUIRKS) -> Iterator[Program | EmitError]:
    """Yield what each untuned schedule becomes, the best first: a program, or why it is none within the tier."""
    schedules = None
    for number in count():
        path = _path(kernel, tier, {"untuned": number, "quirks": asdict(quirks)})
        try:
            kept = _load(path)
            if schedules is not None:
                next(schedules, None)
        except _Missing:
            if schedules is None:
                schedules = islice(baseline_schedules(kernel, tier, quirks), number, None)
            kept = _lowered(next(schedules, None), tier)
            _save(path, kept)
        if kept is None:
            return
        yield kept


def _lowered(schedule: Schedule | None, tier: Tier) -> _Kept:
    if schedule is None:
        return None
    try:
        return emit_wgsl(schedule.mod, tier)
    except EmitError as error:
        return error


@functools.cache
def _lowered_by() -> dict[str, Any]:
    return {"code": code_digest(__name__), "tools": {name: version(name) for name in _TOOLS}}


def _path(kernel: Kernel, tier: Tier, schedule: dict[str, Any]) -> Path:
    limits = {"limits": tier.limits, "features": sorted(tier.features)}
    shaped_by = {**_lowered_by(), "kernel": kernel.id, **limits, **schedule}
    key = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "programs" / f"{key}.json.gz"


class _Missing(Exception):
    """There is no such file, or it is damaged."""


def _load(path: Path) -> _Kept:
    try:
        kept: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        used(path)
        if "program" in kept:
            return Program.from_json(kept["program"])
        return EmitError(kept["error"], kept["hint"]) if kept else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise _Missing from error


def _save(path: Path, kept: _Kept) -> None:
    """Write a file; without room for it, lowering again is all that it costs."""
    global _saved
    content: dict[str, Any] = {}
    if isinstance(kept, Program):
        content = {"program": kept.to_json()}
    elif kept is not None:
        content = {"error": kept.message, "hint": kept.hint}
    with contextlib.suppress(OSError):
        with replaced_file(path) as whole:
            whole.write_bytes(gzip.compress(json.dumps(content).encode(), 1))
        if _saved % _LOOK_EVERY == 0:
            evict(path.parent, _MOST_BYTES)
        _saved += 1


_saved = 0
"""Files that this process wrote."""
