"""Programs compiled before the job that measures them: at most one at a time, and used once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Digested(Protocol):
    """A program; equal digests are equal programs."""

    @property
    def digest(self) -> str:
        """Its identity."""


P = TypeVar("P", bound=Digested)
T = TypeVar("T")


class Compiler(Generic[P, T]):
    """Compiles by ``compile``, ahead or when it is needed."""

    def __init__(self, compile: Callable[[P], T]) -> None:
        self._compile = compile
        self._ahead: tuple[str, T, float] | None = None

    def prepare(self, program: P) -> bool:
        """Compiles ``program``, which is to be taken next. False where that fails: `take` will fail as well then."""
        self._ahead = None
        start = time.perf_counter()
        try:
            compiled = self._compile(program)
        except Exception:  # of whatever kind it is, it comes again where somebody takes care of it
            return False
        self._ahead = program.digest, compiled, time.perf_counter() - start
        return True

    def take(self, program: P) -> tuple[T, float]:
        """``program`` compiled, and the seconds that this took ahead; raises what compiling it raises."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == program.digest:
            return ahead[1:]
        return self._compile(program), 0.0
