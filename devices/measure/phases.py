"""Phases of a measure job: time limits, time spent, and what an error in each phase means."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

from ...support.enums import TrialState
from .job import Measurement, Timeouts


class JobPhase(str, Enum):
    """What is being done for a job. Each phase is announced before it begins, and has its own time limit."""

    LOADING = "loading"
    """Reading the case and moving it to the device."""
    COMPILING = "compiling"
    RUNNING = "running"
    """One submission to the device."""
    VERIFYING = "verifying"
    """Reading outputs back and comparing them."""


Notify = Callable[[JobPhase], None]
"""Called with each phase before it begins."""


class PhaseClock:
    """The current phase of a job, and the seconds spent in each phase. Starts in LOADING.

    ``begun`` is False until a phase has been announced.
    """

    def __init__(self) -> None:
        self.phase = JobPhase.LOADING
        self.begun = False
        self._since = time.perf_counter()
        self._seconds = dict.fromkeys(JobPhase, 0.0)

    def enter(self, phase: JobPhase) -> None:
        """End the current phase and begin ``phase``."""
        now = time.perf_counter()
        self._seconds[self.phase] += now - self._since
        self.phase, self._since, self.begun = phase, now, True

    def seconds(self, *phases: JobPhase) -> float:
        """Return the seconds spent in ``phases`` together, up to now."""
        current = time.perf_counter() - self._since if self.phase in phases else 0.0
        return sum(self._seconds[phase] for phase in phases) + current


def limit_s(timeouts: Timeouts, phase: JobPhase) -> float:
    """Return the seconds that ``phase`` may take."""
    limits = {JobPhase.COMPILING: timeouts.compile_s, JobPhase.RUNNING: timeouts.run_s}
    return limits.get(phase, timeouts.start_s)


def timed_out(timeouts: Timeouts, phase: JobPhase) -> Measurement:
    """Return how a job ends whose ``phase`` exceeded its time limit."""
    states = {JobPhase.COMPILING: TrialState.COMPILE_TIMEOUT, JobPhase.RUNNING: TrialState.RUN_TIMEOUT}
    text = f"{phase.value} did not end within {limit_s(timeouts, phase):g} s"
    return Measurement(states.get(phase, TrialState.RUN_ERROR), error=text)


def failed(phase: JobPhase, text: str) -> Measurement:
    """Return how a job ends that failed in ``phase``: a build error before its program ran, else a run error."""
    early = phase in (JobPhase.LOADING, JobPhase.COMPILING)
    return Measurement(TrialState.BUILD_ERROR if early else TrialState.RUN_ERROR, error=text)


def out_of_memory(phase: JobPhase, text: str) -> Measurement:
    """Return how a job ends for which memory did not suffice in ``phase``."""
    return Measurement(TrialState.RUN_ERROR, error=f"out of memory while {phase.value}: {text}")
