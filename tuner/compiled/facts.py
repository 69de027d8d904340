"""The facts of shaders on chips that are not here: from the database, or compiled now and kept there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ...database.queries.compiled_facts import (
    CompiledShader,
    keep_facts,
    keeps_facts,
    known_facts,
    program_shaders,
)
from ...database.reader import Reader
from ...database.store import Store
from ...devices.offline.chips import Chip
from ...devices.offline.compiler import OfflineCompiler, installed_compiler
from ...devices.program import Shader
from ...support.errors import DeviceError
from ...support.shader_facts import ShaderFacts
from .kernel_program import KernelProgram

_KEPT_TOGETHER = 25
"""Shaders whose facts are committed together: an interrupted run goes on where it was."""


@dataclass
class Facts:
    """Facts of shaders on chips.

    Attributes:
        compiler: The browser and the driver that compiled them, with versions.
        known: By the shader's digest and the chip's key.
        errors: Likewise, why there are none.
        problem: Why nothing could be compiled here, where the database's answers had to do; else empty.
    """

    compiler: str
    known: dict[tuple[str, str], ShaderFacts] = field(default_factory=dict)
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    problem: str = ""


def compiled_facts(
    reader: Reader,
    programs: Sequence[KernelProgram],
    chips: Sequence[Chip],
    *,
    progress: Callable[[str, float], None] = lambda what, done: None,
) -> Facts:
    """Return the facts of the shaders of ``programs`` on ``chips``.

    What the database does not know is compiled, and kept in the user's own database where it can be written to. Where
    nothing can be compiled here, the answers of the compiler that the database knows best are returned.

    Args:
        reader: The database.
        programs: Those whose shaders have no text are looked up only.
        chips: The chips.
        progress: Receives what is done, and the fraction done.

    Raises:
        DeviceError: Nothing can be compiled here, and the database knows none of the shaders.
    """
    keys = [chip.key for chip in chips]
    shaders = {digest: shader for program in programs for digest, shader in program.shaders.items()}
    try:
        compiler = installed_compiler(chips)
    except DeviceError as problem:
        return _stored(reader, list(shaders), keys, problem)
    found = Facts(compiler)
    for one in known_facts(reader, shaders, keys, compiler):
        found.known[one.shader_digest, one.chip] = one.facts
    missing = {
        digest: (shader, unknown)
        for digest, shader in shaders.items()
        if shader is not None and (unknown := [chip for chip in chips if (digest, chip.key) not in found.known])
    }
    own = reader.layers[0]
    store = own if isinstance(own, Store) and keeps_facts(own) else None
    if store is not None:
        keep_facts(store, (), {one.program_digest: list(one.shaders) for one in programs if one.program_digest})
    if missing:
        _compile(found, missing, chips, store, progress)
    return found


def known_programs(reader: Reader, digests: Collection[str], chips: Sequence[Chip]) -> dict[str, tuple[str, ...]]:
    """Return the shaders' digests of those programs of which all facts on ``chips`` are known, by digest.

    They need not be made again; where nothing can be compiled here, none need be.
    """
    try:
        compiler = installed_compiler(chips)
    except DeviceError:
        return program_shaders(reader, digests)
    shaders = program_shaders(reader, digests)
    every = {shader for one in shaders.values() for shader in one}
    known = {(one.shader_digest, one.chip) for one in known_facts(reader, every, [c.key for c in chips], compiler)}
    return {
        digest: one
        for digest, one in shaders.items()
        if all((shader, chip.key) in known for shader in one for chip in chips)
    }


def _compile(
    found: Facts,
    missing: Mapping[str, tuple[Shader, Sequence[Chip]]],
    chips: Sequence[Chip],
    store: Store | None,
    progress: Callable[[str, float], None],
) -> None:
    """Add the outcomes of the shaders in ``missing``, by digest, on the chips that stand with them."""
    fresh: list[CompiledShader] = []

    def keep() -> None:
        if store is not None and fresh:
            keep_facts(store, fresh)
        fresh.clear()

    progress("starting Chromium and the driver", 0.0)
    digests = list(missing)
    try:
        with OfflineCompiler(chips) as compiler:
            for done, outcomes in enumerate(compiler.compile(list(missing.values()))):
                for outcome in outcomes:
                    key = digests[done], outcome.chip.key
                    if outcome.facts is None:
                        found.errors[key] = outcome.error
                    else:
                        found.known[key] = outcome.facts
                        fresh.append(CompiledShader(key[0], found.compiler, key[1], outcome.facts))
                if (done + 1) % _KEPT_TOGETHER == 0:
                    keep()
                progress(f"shader {done + 1} of {len(digests)}", (done + 1) / len(digests))
    finally:
        keep()


def _stored(reader: Reader, digests: list[str], keys: list[str], problem: DeviceError) -> Facts:
    known = known_facts(reader, digests, keys)
    if not known:
        raise problem
    ((compiler, _),) = Counter(one.compiler for one in known).most_common(1)
    found = Facts(compiler, problem=problem.message)
    found.known = {(one.shader_digest, one.chip): one.facts for one in known if one.compiler == compiler}
    return found
