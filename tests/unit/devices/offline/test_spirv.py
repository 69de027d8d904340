"""Entry point and bindings of SPIR-V binaries."""

from __future__ import annotations

import struct

import pytest

from wgtune.devices.offline.spirv import reflect


def module(*instructions: tuple[int, ...]) -> bytes:
    words = [0x07230203, 0x00010400, 0, 99, 0]
    for opcode, *operands in instructions:
        words += [(len(operands) + 1) << 16 | opcode, *operands]
    return struct.pack(f"<{len(words)}I", *words)


def text(value: str) -> tuple[int, ...]:
    data = value.encode() + b"\0"
    data += b"\0" * (-len(data) % 4)
    return struct.unpack(f"<{len(data) // 4}I", data)


ENTRY = (15, 5, 40, *text("dawn_entry_point"), 1, 2)
STORAGE, UNIFORM, WORKGROUP = (59, 10, 1, 12), (59, 11, 2, 2), (59, 12, 3, 4)


def test_bindings_are_told_by_number_and_kind() -> None:
    found = reflect(module(ENTRY, (71, 2, 33, 7), (71, 1, 33, 0), (71, 1, 34, 0), STORAGE, UNIFORM, WORKGROUP))
    assert found.entry == "dawn_entry_point"
    assert found.bindings == ((0, False), (7, True))


def test_a_name_that_fills_its_words_ends_at_its_zero() -> None:
    assert reflect(module((15, 5, 40, *text("abc"), 1))).entry == "abc"


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b"\3\2\x23\7" * 4,
        module(ENTRY)[:-2],
        module(ENTRY)[::-1],
        module(),
        module() + struct.pack("<I", 0),
        module() + struct.pack("<I", 9 << 16 | 15),
    ],
)
def test_what_is_no_whole_module_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError):
        reflect(code)
