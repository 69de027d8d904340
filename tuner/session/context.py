"""What the parts of a running session share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ...database.processes import host_name
from ...database.store import Store
from ...support.signals import Interrupts
from .events import PhaseStarted, SessionPhase, TuneListener
from .kernel_state import KernelLeases, KernelStates
from .phase_timer import PhaseTimer
from .prefetch import Prefetcher
from .request import TuneRequest

_POLL_S = 0.5
"""How often to look whether another tuner has given a kernel back."""


@dataclass(frozen=True)
class SessionContext:
    """A session's means, and when it is to end. ``started`` is of time.monotonic."""

    request: TuneRequest
    store: Store
    listener: TuneListener
    interrupts: Interrupts
    stopwatch: PhaseTimer
    ahead: Prefetcher
    sharing: KernelLeases
    standing: KernelStates
    started: float

    @property
    def over(self) -> bool:
        """Whether the user asked to stop, or the time is up."""
        minutes = self.request.minutes
        out_of_time = minutes is not None and time.monotonic() - self.started >= 60 * minutes
        return self.interrupts.requested or out_of_time

    def wait_for_others(self, kernel_ids: Sequence[str]) -> None:
        """Waits a moment for kernels that other tuners hold, the first of them above all."""
        self.listener.on(PhaseStarted(kernel_ids[0], SessionPhase.WAIT))
        with self.stopwatch.timing(SessionPhase.WAIT):
            time.sleep(_POLL_S)
            self.store.abandon_dead(host_name())  # what a dead tuner of this host holds need not run out
