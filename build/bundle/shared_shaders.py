"""Shaders that differ only in constants become one module, which a browser compiles once.

The constants become members of a uniform, and arrays of storage buffers lose their sizes. That costs no speed where the
loop that does the work stays as it is. So a shader is shared only if it does multiply-adds in a loop that accesses no
storage buffer and has the same constants in all kernels. What changes then are addresses computed before it, limits of
loops around it, and clamps of accesses outside of it (docs/bundle.md, "Shared shaders", has figures).

A shared shader is not the text that was measured. It does the same operations on the same numbers in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...devices.program import Dispatch, Program, Shader
from ..format.shader_constants import NAME, declaration, member

_STORAGE = re.compile(r"(var<storage[^>]*>\s*(\w+)\s*:\s*array<)(.+),\s*\d+>;")
_STORAGE_BINDING = re.compile(r"@binding\(\d+\) var<storage")
_LITERAL = re.compile(r"(?<![\w.])(\d+)u\b")
_FIXED = re.compile(r"@workgroup_size|var<workgroup|\bvar \w+ : array<")
"""Lines whose numbers must be constants in WGSL."""

_LOOP = re.compile(r"\bfor \([^{}]*\) \{[^{}]*\}")
"""A loop without a block in it."""

_DIRECTIVES = re.compile(r"\A(?:(?:enable|requires|diagnostic)\b[^;]*;\s*)*")
"""What must stand before all declarations."""

_MULTIPLY_ADD = re.compile(r"^\s*(\w+) = \1 \+ \(.* \* .*\);$", re.MULTILINE)
_LEAST = 8
"""Multiply-adds, of vectors or scalars, that a loop must write out to count as the one that does the work."""


@dataclass(frozen=True)
class _Text:
    """A shader's WGSL in parts: between the ``words``, which may differ between kernels, stands ``rest``."""

    rest: tuple[str, ...]
    words: tuple[int, ...]


def share_shaders(programs: Mapping[str, Program]) -> dict[str, Program]:
    """Return the programs with one shader for all those that differ only in constants and may be shared."""
    groups: dict[tuple[object, ...], dict[str, _Text]] = {}
    for shader in (shader for program in programs.values() for _, shader in _without_uniform(program)):
        text = _parts(shader.source)
        if text is not None:
            groups.setdefault((shader.entry, shader.workgroup, text.rest), {})[shader.source] = text
    shared: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {}
    for (entry, *_), texts in groups.items():
        if len(texts) > 1:
            source, words = _joined(list(texts.values()))
            shared |= {(str(entry), one): (source, own) for one, own in zip(texts, words, strict=True)}
    return {key: _replaced(program, shared) for key, program in programs.items()}


def _without_uniform(program: Program) -> Iterator[tuple[int, Shader]]:
    """Yield the shaders that have no uniform yet, with their indices."""
    bound = {dispatch.shader for dispatch in program.dispatches if dispatch.uniform}
    yield from ((index, shader) for index, shader in enumerate(program.shaders) if index not in bound)


def _parts(source: str) -> _Text | None:
    """Return a shader in parts; None where its constants may not become a uniform's."""
    loop = max(_LOOP.finditer(source), key=lambda found: len(_MULTIPLY_ADD.findall(found[0])), default=None)
    if loop is None or len(_MULTIPLY_ADD.findall(loop[0])) < _LEAST or re.search(rf"\b{NAME}\b", source):
        return None
    buffers = [found[2] for found in _STORAGE.finditer(source)]
    if not buffers or re.search(rf"\b(?:{'|'.join(buffers)})\b", loop[0]):
        return None
    rest, words, end = [], [], 0
    for found in _LITERAL.finditer(source):
        line = source[source.rfind("\n", 0, found.start()) + 1 : source.find("\n", found.start())]
        if loop.start() <= found.start() < loop.end() or _FIXED.search(line):
            continue
        rest.append(source[end : found.start()])
        words.append(int(found[1]))
        end = found.end()
    rest.append(source[end:])
    return _Text(tuple(_STORAGE.sub(r"\1\3>;", part) for part in rest), tuple(words))


def _joined(texts: Sequence[_Text]) -> tuple[str, list[tuple[int, ...]]]:
    """Return the module for all ``texts``, and the words of the uniform for each of them."""
    columns = list(zip(*(text.words for text in texts), strict=True))
    members: list[tuple[int, ...]] = []
    values: dict[tuple[int, ...], str] = {}
    # The smallest first: larger ones are often multiples of them.
    for column in sorted({column for column in columns if len(set(column)) > 1}):
        for number, known in enumerate(members):
            factor = _factor(known, column)
            if factor is not None:
                values[column] = member(number, factor)
                break
        else:
            values[column] = member(len(members))
            members.append(column)
    rest = texts[0].rest
    source = rest[0] + "".join(
        values.get(column, f"{column[0]}u") + after for column, after in zip(columns, rest[1:], strict=True)
    )
    words = [tuple(known[index] for known in members) for index in range(len(texts))]
    if not members:  # only the sizes of storage buffers differ
        return source, words
    declared = declaration(len(_STORAGE_BINDING.findall(source)), len(members))
    return _DIRECTIVES.sub(lambda found: found[0] + declared, source, count=1), words


def _factor(known: tuple[int, ...], column: tuple[int, ...]) -> int | None:
    """Return by which whole number all of ``known`` must be multiplied to give ``column``; None for no such number."""
    if 0 in known or any(value % one for one, value in zip(known, column, strict=True)):
        return None
    factors = {value // one for one, value in zip(known, column, strict=True)}
    return factors.pop() if len(factors) == 1 else None


def _replaced(program: Program, shared: Mapping[tuple[str, str], tuple[str, tuple[int, ...]]]) -> Program:
    """Return a program with shared shaders, and the words that they need, in the place of its own."""
    shaders, words = list(program.shaders), dict[int, tuple[int, ...]]()
    for index, shader in _without_uniform(program):
        if (found := shared.get((shader.entry, shader.source))) is not None:
            shaders[index], words[index] = replace(shader, source=found[0]), found[1]

    def bind(dispatch: Dispatch) -> Dispatch:
        return replace(dispatch, uniform=words[dispatch.shader]) if dispatch.shader in words else dispatch

    return replace(program, shaders=tuple(shaders), dispatches=tuple(map(bind, program.dispatches)))
