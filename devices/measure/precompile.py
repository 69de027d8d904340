"""Compilation of the next program ahead of the job that measures it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Digested(Protocol):
    """A program; equal digests are equal programs."""

    @property
    def digest(self) -> str:
        """Identifier of its contents."""


P = TypeVar("P", bound=Digested)
T = TypeVar("T")


class Compiler(Generic[P, T]):
    """Compiles programs with ``compile``. Keeps at most one program compiled ahead, for one use."""

    def __init__(self, compile: Callable[[P], T]) -> None:
        self._compile = compile
        self._prepared: tuple[str, T, float] | None = None

    def prepare(self, program: P) -> bool:
        """Compile ``program``, which is to be taken next. Returns False where that fails: `take` will raise then."""
        self._prepared = None
        start = time.perf_counter()
        try:
            compiled = self._compile(program)
        except Exception:  # raised again by `take`, where it is handled
            return False
        self._prepared = program.digest, compiled, time.perf_counter() - start
        return True

    def take(self, program: P) -> tuple[T, float]:
        """Return ``program`` compiled, and the seconds that `prepare` spent on it; raises what compiling raises."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] == program.digest:
            return prepared[1:]
        return self._compile(program), 0.0
