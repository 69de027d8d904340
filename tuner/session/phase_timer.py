"""Seconds that a session spends in each phase."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .events import SessionPhase


class PhaseTimer:
    """Seconds by phase.

    Attributes:
        seconds: time of the session's own thread. It is in one phase at a time, so the sum is at most the elapsed time.
        overlapped: time of work done in the background while the device measured. No second is in both.
    """

    def __init__(self) -> None:
        self.seconds: dict[SessionPhase, float] = {}
        self.overlapped: dict[SessionPhase, float] = {}

    def add(self, phase: SessionPhase, seconds: float) -> None:
        """Add ``seconds`` of the session's own time to ``phase``."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    @contextmanager
    def timing(self, phase: SessionPhase) -> Iterator[None]:
        """Add the duration of the ``with`` block to ``phase``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - start)

    def add_background(self, work: Mapping[SessionPhase, float], waited_s: float) -> None:
        """Add the seconds of work done in another thread.

        Args:
            work: seconds of the work, by phase.
            waited_s: how long the session's thread waited for the work to end. These seconds are shared out among the
                work's phases in proportion; the rest of the work counts as overlapped.
        """
        total = sum(work.values())
        share = min(1.0, waited_s / total) if total else 0.0
        for phase, seconds in work.items():
            self.add_overlapping(phase, seconds, share * seconds)

    def add_overlapping(self, phase: SessionPhase, seconds: float, waited_s: float) -> None:
        """Add ``seconds`` to ``phase``, of which the session's thread waited ``waited_s``; the rest is overlapped."""
        self.add(phase, waited_s)
        if seconds > waited_s:
            self.overlapped[phase] = self.overlapped.get(phase, 0.0) + seconds - waited_s
