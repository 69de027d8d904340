"""A straight line of WGSL statements, in which what is loaded twice is loaded once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_LOAD = re.compile("\x00(\\d+)\x00")
"""The place of a load in a statement, until the line is complete."""


@dataclass
class _PendingLoad:
    """A load of the current straight line: its text, how often it occurs, and the first statement that it occurs in."""

    text: str
    first: int
    uses: int = 0


class StraightLine:
    """A straight line of statements, in which equal loads of an unchanged buffer become one."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.loads: list[_PendingLoad] = []
        self._known: dict[tuple[str, int], int] = {}
        self._versions: dict[str, int] = {}

    def load(self, buffer: str, text: str) -> str:
        """Return a mark for a load, to be replaced by the load or by the name of its value."""
        key = (text, self._versions.get(buffer, 0))
        if key not in self._known:
            self._known[key] = len(self.loads)
            self.loads.append(_PendingLoad(text, len(self.statements)))
        number = self._known[key]
        self.loads[number].uses += 1
        return f"\x00{number}\x00"

    def stored(self, buffer: str) -> None:
        """Note that a buffer was written: later loads are others."""
        self._versions[buffer] = self._versions.get(buffer, 0) + 1

    def lines(self, new_name: Callable[[], str]) -> list[str]:
        """Return the statements with their loads in place."""
        values: dict[int, str] = {}
        before: dict[int, list[str]] = {}

        def resolve(text: str) -> str:
            return _LOAD.sub(lambda found: values[int(found.group(1))], text)

        for number, load in enumerate(self.loads):
            text = resolve(load.text)
            if load.uses > 1:
                values[number] = new_name()
                before.setdefault(load.first, []).append(f"let {values[number]} = {text};")
            else:
                values[number] = text
        found: list[str] = []
        for number, statement in enumerate(self.statements):
            found += before.get(number, [])
            found.append(resolve(statement))
        return found
