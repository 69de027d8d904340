"""Sampling of run times: warm-up, repetition within a pass, and the stopping rule. Independent of device and clock."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from ...support.enums import CacheState
from ...support.order_statistics import median_error, median_interval
from .job import Sampling

MAX_REPEAT = 1000

RunnableT = TypeVar("RunnableT")


@dataclass(frozen=True)
class Samples:
    """Seconds per run, in the order taken: ``warmup_s`` before the samples, then ``samples_s``."""

    warmup_s: tuple[float, ...]
    samples_s: tuple[float, ...]


class Sampler(ABC, Generic[RunnableT]):
    """Runs a program and takes samples of its time.

    Attributes:
        kind: What seconds are read from. May change to ``wall`` for good.
        busy_s: Wall-clock seconds of all submissions together.
        before_submit: Called before each submission.
    """

    pass_s: ClassVar[Mapping[str, float]]
    """By kind: seconds below which a pass is too short for the clock, so that the program is repeated within it."""

    def __init__(self, kind: Literal["timestamp", "wall"]) -> None:
        self.kind = kind
        self.busy_s = 0.0
        self.before_submit: Callable[[], None] = lambda: None

    @abstractmethod
    def run(self, runnable: RunnableT, repeat: int = 1) -> float:
        """Run the program ``repeat`` times in one pass, wait for the end, and return the seconds that all took."""

    @abstractmethod
    def run_cold(self, runnable: RunnableT, count: int = 1) -> float:
        """Run the program ``count`` times, each after emptying the caches; return the seconds without the emptying."""

    def run_first(self, runnable: RunnableT) -> float:
        """Run the program once, for verification; return the seconds."""
        return self.run(runnable)

    def cold_runs(self, first_s: float) -> int:
        """Return how many cold runs make one sample of a program whose first run took ``first_s`` seconds."""
        return 1

    def sample(self, runnable: RunnableT, sampling: Sampling, first_s: float) -> Samples:
        """Take samples as ``sampling`` says; the first run, which took ``first_s`` seconds, is the first warm-up."""
        warmup = [first_s]
        cold = sampling.cache is CacheState.COLD
        if sampling.give_up_s is not None and first_s > sampling.give_up_s:
            run = self.run_cold if cold else self.run
            return Samples(tuple(warmup), tuple(run(runnable) for _ in range(sampling.min_samples_slow)))
        kind = self.kind
        count = self.cold_runs(first_s) if cold else self._repeat(runnable, first_s, warmup)

        def measure() -> float:
            seconds = self.run_cold(runnable, count) if cold else self.run(runnable, count)
            return seconds / count

        warmup += (measure() for _ in range(sampling.warmup))
        samples: list[float] = []
        begun_s = self.busy_s
        while not _enough(samples, self.busy_s - begun_s, sampling):
            samples.append(measure())
        if self.kind != kind:  # samples of two clocks must not mix: begin again with the new one
            return self.sample(runnable, sampling, first_s)
        return Samples(tuple(warmup), tuple(samples))

    def _repeat(self, runnable: RunnableT, first_s: float, warmup: list[float]) -> int:
        """Return how often to run within a pass for it to be long enough for the clock; adds its runs to ``warmup``."""
        wanted_s = self.pass_s[self.kind]
        repeat = min(MAX_REPEAT, math.ceil(wanted_s / max(first_s, 1e-9)))
        # The first run was cold, so the estimate is mostly too low.
        while repeat < MAX_REPEAT and first_s < wanted_s:
            seconds = self.run(runnable, repeat)
            warmup.append(seconds / repeat)
            if seconds >= wanted_s / 2:
                break
            repeat = min(MAX_REPEAT, repeat * max(2, math.ceil(wanted_s / max(seconds, 1e-9))))
        return repeat


def _enough(samples: Sequence[float], busy_s: float, sampling: Sampling) -> bool:
    """Return whether ``samples`` suffice for ``sampling``; ``busy_s`` is the time of all submissions for them."""
    if len(samples) < sampling.min_samples:
        return False
    if len(samples) >= sampling.max_samples or busy_s >= sampling.max_seconds:
        return True
    interval = median_interval(samples)
    if interval is None:
        return False
    if sampling.rival_s is not None and interval.low > sampling.rival_s:
        return True
    return busy_s >= sampling.min_seconds and median_error(samples) <= sampling.precision
