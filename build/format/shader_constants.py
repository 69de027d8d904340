"""Constants of a shader that several kernels share: members of a uniform, whose values stand in the plan."""

from __future__ import annotations

import re
from collections.abc import Sequence

NAME = "constants"
"""Name of the uniform in WGSL."""

_MEMBER = re.compile(rf"\({NAME}\.c(\d+) \* (\d+)u\)|\b{NAME}\.c(\d+)")


def declaration(binding: int, count: int) -> str:
    """Return WGSL that declares ``count`` 32-bit unsigned integers as the uniform at ``binding`` of group 0."""
    members = ", ".join(f"c{number} : u32" for number in range(count))
    return f"struct Constants {{ {members} }}\n@group(0) @binding({binding}) var<uniform> {NAME} : Constants;\n"


def member(number: int, factor: int = 1) -> str:
    """Return WGSL for ``factor`` times member ``number`` of the uniform."""
    return f"{NAME}.c{number}" if factor == 1 else f"({NAME}.c{number} * {factor}u)"


def with_constants(source: str, words: Sequence[int]) -> str:
    """Return a shared shader with the uniform's ``words`` in the place of its members, to be read and not to be run."""

    def value(found: re.Match[str]) -> str:
        number, factor = (int(found[1]), int(found[2])) if found[1] else (int(found[3]), 1)
        return f"{words[number] * factor}u" if number < len(words) else found[0]

    return _MEMBER.sub(value, source)
