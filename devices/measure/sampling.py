"""When measuring is enough: the policy that every clock shares, whatever runs the work."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from ...support.enums import CacheState
from ...support.order_statistics import median_error, median_interval
from .job import Sampling

MAX_REPEAT = 1000

StepsT = TypeVar("StepsT")


@dataclass(frozen=True)
class Samples:
    """Seconds per run: ``warmup_s`` before anything counted, then ``samples_s``; each in the order taken."""

    warmup_s: tuple[float, ...]
    samples_s: tuple[float, ...]


class Sampler(ABC, Generic[StepsT]):
    """Runs steps and takes samples of them.

    ``kind`` says what seconds are read from, and may fall back to ``wall`` for good. ``busy_s`` sums the wall-clock
    seconds of all submissions.
    """

    pass_s: ClassVar[Mapping[str, float]]
    """By kind: a pass shorter than this is repeated within the pass."""

    def __init__(self, kind: Literal["timestamp", "wall"]) -> None:
        self.kind = kind
        self.busy_s = 0.0

    @abstractmethod
    def run(self, steps: StepsT, repeat: int = 1) -> float:
        """Runs the steps ``repeat`` times in one pass, waits for the end, and returns the seconds that all took."""

    @abstractmethod
    def run_cold(self, steps: StepsT, count: int = 1) -> float:
        """Runs the steps ``count`` times, after emptying the caches before each, which is not part of the seconds."""

    def cold_runs(self, first_s: float) -> int:
        """How many cold runs make a sample of steps whose first run took ``first_s``."""
        return 1

    def sample(self, steps: StepsT, sampling: Sampling, first_s: float) -> Samples:
        """Samples as ``sampling`` wants them; ``first_s`` is what the first run took, which is the first warm-up."""
        warmup = [first_s]
        cold = sampling.cache is CacheState.COLD
        if sampling.give_up_s is not None and first_s > sampling.give_up_s:
            run = self.run_cold if cold else self.run
            return Samples(tuple(warmup), tuple(run(steps) for _ in range(sampling.min_samples_slow)))
        kind = self.kind
        count = self.cold_runs(first_s) if cold else self._repeat(steps, first_s, warmup)

        def measure() -> float:
            seconds = self.run_cold(steps, count) if cold else self.run(steps, count)
            return seconds / count

        warmup += (measure() for _ in range(sampling.warmup))
        samples: list[float] = []
        begun_s = self.busy_s
        while not _enough(samples, self.busy_s - begun_s, sampling):
            samples.append(measure())
        if self.kind != kind:  # two kinds of samples must not mix: begin again with the one that is left
            return self.sample(steps, sampling, first_s)
        return Samples(tuple(warmup), tuple(samples))

    def _repeat(self, steps: StepsT, first_s: float, warmup: list[float]) -> int:
        """How often the steps must run within one pass for the pass to be long enough for the clock."""
        wanted_s = self.pass_s[self.kind]
        repeat = min(MAX_REPEAT, math.ceil(wanted_s / max(first_s, 1e-9)))
        # The first run was cold, so the estimate is mostly too low.
        while repeat < MAX_REPEAT and first_s < wanted_s:
            seconds = self.run(steps, repeat)
            warmup.append(seconds / repeat)
            if seconds >= wanted_s / 2:
                break
            repeat = min(MAX_REPEAT, repeat * max(2, math.ceil(wanted_s / max(seconds, 1e-9))))
        return repeat


def _enough(samples: Sequence[float], busy_s: float, sampling: Sampling) -> bool:
    """Whether ``samples``, which took ``busy_s`` with all that went with them, are what ``sampling`` wants."""
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
