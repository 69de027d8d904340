"""Objects that the steps of a session share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ...database.liveness import host_name
from ...database.store import Store
from ...support.enums import CacheState
from ...support.signals import Interrupts
from .events import PhaseStarted, SessionPhase, TuneListener
from .kernel_state import KernelLeases, KernelStates
from .phase_timer import PhaseTimer
from .prefetch import Prefetcher
from .request import TuneRequest

_POLL_S = 0.5
"""Seconds between two attempts to lease a kernel that another tuner holds."""


@dataclass(frozen=True)
class TrialContext:
    """What running trials takes, in a tuning session or when stored schedules are measured again.

    Attributes:
        store: where trials are committed.
        listener: told what the session does.
        interrupts: cuts a measurement short when the user asks to stop.
        timer: counts the session's time by phase.
        prefetcher: computes references in the background, if it overlaps.
        seed: of the inputs, and of the search.
        cache: the state of the GPU's caches before each timed run.
    """

    store: Store
    listener: TuneListener
    interrupts: Interrupts
    timer: PhaseTimer
    prefetcher: Prefetcher
    seed: int
    cache: CacheState


@dataclass(frozen=True)
class SessionContext(TrialContext):
    """What the steps of a tuning session take. ``started`` is the session's start on `time.monotonic`'s clock."""

    request: TuneRequest
    leases: KernelLeases
    kernel_states: KernelStates
    started: float

    @property
    def should_stop(self) -> bool:
        """Whether the user asked to stop, or the session's time is used up."""
        minutes = self.request.minutes
        out_of_time = minutes is not None and time.monotonic() - self.started >= 60 * minutes
        return self.interrupts.requested or out_of_time

    def wait_for_leases(self, kernel_ids: Sequence[str]) -> None:
        """Wait for half a second because other tuners hold all of ``kernel_ids``; the first is named to listeners."""
        self.listener.on(PhaseStarted(kernel_ids[0], SessionPhase.WAIT))
        with self.timer.timing(SessionPhase.WAIT):
            time.sleep(_POLL_S)
            # A tuner of this host that died holds its leases until they expire; ending its session frees them now.
            self.store.abandon_dead(host_name())
