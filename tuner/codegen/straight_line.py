"""A straight line of WGSL statements, in which what is loaded or computed twice is so once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

_MARK = re.compile("\x00(\\d+)\x00")
"""The place of a value in a statement, until the line is complete."""

_ENCLOSED = re.compile(r"(?<![\w>])\((\w+)\)")
"""A name in parentheses that are no call's."""


@dataclass
class _Value:
    """A value of the current straight line: its text, and the first statement that it occurs in."""

    text: str
    first: int


class StraightLine:
    """A straight line of statements, in which equal loads of an unchanged buffer become one, and equal expressions."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self._values: list[_Value] = []
        self._known: dict[tuple[str, int], int] = {}
        self._versions: dict[str, int] = {}
        self._registers = 0

    def load(self, buffer: str, text: str) -> str:
        """Return a mark for a load, to be replaced by the load or by the name of its value."""
        return self._mark(text, self._versions.get(buffer, 0))

    def expression(self, text: str) -> str:
        """Return a mark for an expression of marks, registers and names."""
        return text if _MARK.fullmatch(text) else self._mark(text, -1 - self._registers)

    def _mark(self, text: str, version: int) -> str:
        key = (text, version)
        if key not in self._known:
            self._known[key] = len(self._values)
            self._values.append(_Value(text, len(self.statements)))
        return f"\x00{self._known[key]}\x00"

    def stored(self, buffer: str, *, register: bool = False) -> None:
        """Note that a buffer was written: later loads are others, and expressions where it lies in registers."""
        self._versions[buffer] = self._versions.get(buffer, 0) + 1
        self._registers += register

    def lines(self, new_name: Callable[[], str]) -> list[str]:
        """Return the statements with their values in place."""
        texts = [*self.statements, *(value.text for value in self._values)]
        uses = Counter(int(number) for text in texts for number in _MARK.findall(text))
        values: list[str] = []
        before: dict[int, list[str]] = {}

        def resolve(text: str) -> str:
            return _ENCLOSED.sub(r"\1", _MARK.sub(lambda found: values[int(found.group(1))], text))

        for number, value in enumerate(self._values):
            text = resolve(value.text)
            if uses[number] > 1:
                values.append(new_name())
                before.setdefault(value.first, []).append(f"let {values[number]} = {text};")
            else:
                values.append(text)
        found: list[str] = []
        for number, statement in enumerate(self.statements):
            found += before.get(number, [])
            found.append(resolve(statement))
        return found
