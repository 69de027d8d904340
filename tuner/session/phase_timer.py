"""Where a session's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .events import SessionPhase


class PhaseTimer:
    """Seconds by phase.

    ``seconds`` are the session's own: one phase at a time, so that they add up to no more than what has passed.
    ``overlapped`` are of work done meanwhile, while a device was measuring. No second is in both.
    """

    def __init__(self) -> None:
        self.seconds: dict[SessionPhase, float] = {}
        self.overlapped: dict[SessionPhase, float] = {}

    def add(self, phase: SessionPhase, seconds: float) -> None:
        """Counts ``seconds`` towards ``phase``."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    @contextmanager
    def timing(self, phase: SessionPhase) -> Iterator[None]:
        """Counts what runs inside towards ``phase``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - start)

    def take_over(self, work: Mapping[SessionPhase, float], waited_s: float) -> None:
        """Books ``work`` done in another thread, for whose end the session waited ``waited_s`` of its own time.

        The time waited goes to the work's phases in proportion; the rest of the work cost the session nothing.
        """
        total = sum(work.values())
        share = min(1.0, waited_s / total) if total else 0.0
        for phase, seconds in work.items():
            self.add_partly(phase, seconds, share * seconds)

    def add_partly(self, phase: SessionPhase, seconds: float, waited_s: float) -> None:
        """Counts ``seconds`` towards ``phase``, of which the session waited ``waited_s``."""
        self.add(phase, waited_s)
        if seconds > waited_s:
            self.overlapped[phase] = self.overlapped.get(phase, 0.0) + seconds - waited_s
