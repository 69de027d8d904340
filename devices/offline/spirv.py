"""Entry point and bindings of a SPIR-V binary, read as the SPIR-V specification lays it out."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_MAGIC = 0x07230203
_HEADER_WORDS = 5
_ENTRY_POINT, _VARIABLE, _DECORATE = 15, 59, 71
_BINDING = 33
_UNIFORM = 2


@dataclass(frozen=True)
class Reflected:
    """A module's first entry point, and the bindings that it uses: number, and whether it is a uniform buffer."""

    entry: str
    bindings: tuple[tuple[int, bool], ...]


def reflect(code: bytes) -> Reflected:
    """Return the entry point and the bindings; raises ValueError where ``code`` is no SPIR-V of this byte order."""
    if len(code) < 4 * _HEADER_WORDS or len(code) % 4:
        raise ValueError("a SPIR-V module has a header and whole words")
    words = struct.unpack(f"<{len(code) // 4}I", code)
    if words[0] != _MAGIC:
        raise ValueError("not a SPIR-V module")
    entry = ""
    numbers: dict[int, int] = {}
    uniforms: set[int] = set()
    at = _HEADER_WORDS
    while at < len(words):
        length, opcode = words[at] >> 16, words[at] & 0xFFFF
        if not length or at + length > len(words):
            raise ValueError("a SPIR-V instruction runs over the module's end")
        operands = words[at + 1 : at + length]
        if opcode == _ENTRY_POINT and not entry:
            entry = struct.pack(f"<{len(operands) - 2}I", *operands[2:]).split(b"\0")[0].decode()
        elif opcode == _DECORATE and operands[1] == _BINDING:
            numbers[operands[0]] = operands[2]
        elif opcode == _VARIABLE and operands[2] == _UNIFORM:
            uniforms.add(operands[1])
        at += length
    if not entry:
        raise ValueError("the SPIR-V module has no entry point")
    return Reflected(entry, tuple(sorted((number, ident in uniforms) for ident, number in numbers.items())))
