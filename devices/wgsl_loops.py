"""Iterations of the loops of a program, counted in its WGSL."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .program import AnyProgram, Program

_BRACE = re.compile(r"(?:\bfor\s*\((?P<head>[^{}]*)\)\s*)?\{|\}")
_HEAD = re.compile(
    r"\s*var (?P<name>\w+)(?:\s*:\s*\w+)?\s*=\s*(?P<start>\d+)[iu]?\s*;"
    r"\s*(?P=name)\s*(?P<relation><=?)\s*(?P<stop>\d+)[iu]?\s*;"
    r"\s*(?P=name)\s*(?:\+\+|(?:\+=|=\s*(?P=name)\s*\+)\s*(?P<step>\d+)[iu]?)\s*"
)
_SHORT = 32
"""Iterations, of a loop and of those in it together, up to which drivers may unroll it."""


@dataclass
class _Block:
    """A block of WGSL and its iterations so far; ``trips`` is 1 for a block that is no loop, or of unknown extent.

    ``least`` is what is left where the driver unrolls all loops that it may; ``unrolled`` is the most iterations of
    such a loop. ``most`` counts every loop, and once more for each time that it is entered.
    """

    trips: int = 1
    is_loop: bool = False
    least: int = 0
    most: int = 0
    unrolled: int = 1

    def add(self, inner: _Block) -> None:
        """Add a block that has ended to this one, which it stands in."""
        if not inner.is_loop:
            self.least += inner.least
            self.most += inner.most
            self.unrolled = max(self.unrolled, inner.unrolled)
            return
        self.most += inner.trips * (1 + inner.most) + 1
        if not inner.least and inner.trips * inner.unrolled <= _SHORT:
            self.unrolled = max(self.unrolled, inner.trips * inner.unrolled)
        else:
            self.least += inner.trips * (1 + inner.least)


def may_exceed(program: AnyProgram, limit: int | None) -> bool:
    """Return whether a thread of ``program`` may make more than ``limit`` iterations; False without a limit."""
    return limit is not None and max(most for _, most in _iterations(program)) > limit


def surely_exceeds(program: AnyProgram, limit: int | None) -> bool:
    """Return whether a thread of ``program`` makes more than ``limit`` iterations, whatever the driver unrolls."""
    return limit is not None and max(least for least, _ in _iterations(program)) > limit


def thread_iterations(source: str) -> tuple[int, int]:
    """Return the least and the most iterations that a thread makes in all loops of a WGSL module together.

    The least where the driver unrolls all short loops; the most where it unrolls none, each entry of a loop counted as
    one more. Loops whose extent the text does not tell count once.
    """
    open_blocks = [_Block()]
    for brace in _BRACE.finditer(source):
        if brace.group() != "}":
            head = brace.group("head")
            open_blocks.append(_Block() if head is None else _Block(_trips(head), is_loop=True))
        elif len(open_blocks) > 1:
            ended = open_blocks.pop()
            open_blocks[-1].add(ended)
    return open_blocks[0].least, open_blocks[0].most


def _iterations(program: AnyProgram) -> list[tuple[int, int]]:
    """Return the iterations of each shader; none for native code, whose loops only its compiler knows."""
    shaders = program.shaders if isinstance(program, Program) else ()
    return [thread_iterations(shader.source) for shader in shaders] or [(0, 0)]


def _trips(head: str) -> int:
    found = _HEAD.fullmatch(head)
    if found is None:
        return 1
    start, stop = int(found["start"]), int(found["stop"]) + (found["relation"] == "<=")
    return max(0, math.ceil((stop - start) / int(found["step"] or 1)))
