"""What GPUs' compilers make of shaders: facts per shader, compiler and chip, and the shaders of programs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row, func, select

from ...support.shader_facts import ShaderFacts
from ..reader import Reader
from ..schema.engine import is_read_only
from ..schema.rows import check_facts, compiled_shader, program_shader
from ..sql_helpers import insert_missing, matching
from ..store import Store

_FACTS = tuple(field.name for field in fields(ShaderFacts))


@dataclass(frozen=True)
class CompiledShader:
    """The facts of a shader: ``compiler`` names its programs and their versions, ``chip`` is the chip's key."""

    shader_digest: str
    compiler: str
    chip: str
    facts: ShaderFacts


def known_facts(
    reader: Reader, shader_digests: Collection[str], chips: Collection[str], compiler: str | None = None
) -> list[CompiledShader]:
    """Return what is known of the shaders on the chips (keys), by one ``compiler`` or by any, each once.

    In the order of shaders, compilers and chips.
    """
    found: dict[tuple[str, str, str], CompiledShader] = {}
    for layer in reader.layers:
        with layer.reading() as connection:
            for match in matching([compiled_shader.c.shader_digest], [(digest,) for digest in shader_digests]):
                query = select(compiled_shader).where(match, compiled_shader.c.chip.in_(chips))
                if compiler is not None:
                    query = query.where(compiled_shader.c.compiler == compiler)
                for row in connection.execute(query):
                    found.setdefault((row.shader_digest, row.compiler, row.chip), _to_compiled(row))
    return [found[key] for key in sorted(found)]


def program_shaders(reader: Reader, program_digests: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the digests of the shaders of each program that is known, in order, by the program's digest."""
    found: dict[str, dict[int, str]] = {}
    for layer in reader.layers:
        with layer.reading() as connection:
            for match in matching([program_shader.c.program_digest], [(digest,) for digest in program_digests]):
                for digest, position, shader in connection.execute(select(program_shader).where(match)):
                    found.setdefault(digest, {})[position] = shader
    return {digest: tuple(shaders[at] for at in sorted(shaders)) for digest, shaders in found.items()}


def program_facts(
    reader: Reader, program_digests: Collection[str], chip: str, compiler: str
) -> dict[str, list[ShaderFacts]]:
    """Return the facts of the shaders of each program of which all are known, in order, by the program's digest."""
    shaders = program_shaders(reader, program_digests)
    every = {shader for one in shaders.values() for shader in one}
    known = {one.shader_digest: one.facts for one in known_facts(reader, every, [chip], compiler)}
    return {
        digest: [known[shader] for shader in one]
        for digest, one in shaders.items()
        if all(shader in known for shader in one)
    }


def keeps_facts(store: Store) -> bool:
    """Return whether the store can be written to; a release cannot."""
    return not is_read_only(store._engine)


def keep_facts(
    store: Store, found: Iterable[CompiledShader], programs: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Add facts that are new, and the shaders' digests of ``programs``, in order, by the program's digest.

    Raises DatabaseError when the database fails.
    """
    rows = [
        {"shader_digest": one.shader_digest, "compiler": one.compiler[:255], "chip": one.chip, **asdict(one.facts)}
        for one in found
    ]
    of_programs = [
        {"program_digest": digest, "position": position, "shader_digest": shader}
        for digest, shaders in sorted((programs or {}).items())
        for position, shader in enumerate(shaders)
    ]
    # In one order, lest two writers on PostgreSQL wait for each other's rows.
    rows.sort(key=lambda row: (row["shader_digest"], row["compiler"], row["chip"]))
    with store.writing() as connection:
        insert_missing(connection, program_shader, of_programs)
        insert_missing(connection, compiled_shader, rows)


def count_facts(connection: Connection) -> dict[str, dict[str, int]]:
    """Count the compiled shaders by compiler and chip."""
    columns = compiled_shader.c.compiler, compiled_shader.c.chip
    query = select(*columns, func.count()).group_by(*columns).order_by(*columns)
    found: dict[str, dict[str, int]] = {}
    for compiler, chip, count in connection.execute(query):
        found.setdefault(compiler, {})[chip] = count
    return found


def _to_compiled(row: Row[Any]) -> CompiledShader:
    values = row._asdict()
    check_facts(values)
    facts = ShaderFacts(**{name: values[name] for name in _FACTS})
    return CompiledShader(row.shader_digest, row.compiler, row.chip, facts)
