"""Evolutionary search for one kernel's schedules: draw, mutate, rank by a cost model, and lower the chosen.

MetaSchedule's own evolutionary strategy replays some hundreds of traces a round. With WebGPU's limits it needs 3 to
90 s on two cores to propose 8 convolutions, more than measuring all of them takes. Here decisions are checked, and
ranked, by what is known of them without replaying (`wgtune.tuner.search.features`): a round ranks a few hundred points
in some ten milliseconds, and replays only those that it proposes.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...database.schema.records import TrialSummary
from ...devices.limits import Tier
from ...devices.program import AnyProgram
from ...devices.quirks import NO_QUIRKS, Quirks
from ...devices.wgsl_loops import surely_exceeds
from ..codegen.emit import emit
from ..codegen.traces import trace_to_json
from ..codegen.wgsl import EmitError
from ..ir import Kernel
from .cost_model import CostModel, size_penalty
from .features import Features, program_features
from .kernel_space import KernelSpace, Point
from .knowledge import Lent

_RANDOM = 64
"""Points drawn at random for a round to rank."""

_MUTATED = 192
"""Mutations of the best results for a round to rank."""

_LENT_POINTS = 16
"""Points of other devices' best schedules that every round ranks beside its own, until they are drawn."""

_ELITES = 6
"""Number of best results that are mutated."""

_RANDOM_PICK = 0.2
"""Share of proposals picked at random, so that the cost model learns where it is wrong."""

_EMPTY_ROUNDS = 8
"""Rounds without a new program after which a kernel is exhausted."""

_MAX_PUT_ASIDE = 64
"""Programs put aside in a row, because a driver would run them wrongly, after which a kernel is exhausted."""

# TVM logs each round here; the session's events tell the user what matters of it. A handler without a name would break
# `tune_tir` in the same process, whose own logging set-up reads the name of every handler.
logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.CRITICAL)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A proposed schedule. ``program`` is None where none could be emitted; ``error`` then says why."""

    trace: str
    program: AnyProgram | None
    error: str
    point: Point
    features: Features


class KernelSearch:
    """Proposes schedules of one kernel, no GPU program twice.

    Args:
        kernel: the kernel to schedule.
        tier: the limits that programs keep.
        seed: seeds the random state; the same seed, earlier trials and results give the same proposals.
        model: the session's cost model; a new one by default.
        tried: earlier trials of this kernel on this device. Their programs are not proposed again, and their latencies
            guide the search. Their number changes the random state.
        quirks: of the device's driver. A program whose loops it surely ends too soon is not proposed.
        lent: other devices' schedules of this kernel. The best are ranked beside this search's own points.
    """

    def __init__(
        self,
        kernel: Kernel,
        tier: Tier,
        seed: int = 0,
        model: CostModel | None = None,
        tried: Sequence[TrialSummary] = (),
        quirks: Quirks = NO_QUIRKS,
        lent: Sequence[Lent] = (),
    ) -> None:
        self.kernel = kernel
        self._max_thread_iterations = quirks.max_thread_iterations
        self._tier = tier
        self._model = model or CostModel()
        self._random = random.Random(f"{kernel.id}:{seed + len(tried)}")
        self._space = KernelSpace(kernel, tier, quirks, self._random.randrange(1, 2**31 - 1))
        self._drawn: set[Point] = set()
        self._known: dict[str, float | None] = {}
        """Latency by program digest, None for a program that failed."""
        self._elites: list[tuple[float, Point]] = []
        """The best points, by their latency with the penalty of their program's length."""
        self._empty_rounds = 0
        self._put_aside = 0
        self.exhausted = not self._space.sketches
        """Whether no new schedule was found in the last rounds."""
        self.emit_s = 0.0
        """Seconds spent on emitting programs so far."""
        self._recall(tried)
        self._lent = self._learn_from(lent)

    def propose(self, count: int) -> list[Candidate]:
        """Return up to ``count`` schedules whose programs were not tried, the most promising first.

        The list is empty when the kernel is exhausted. A schedule that cannot be emitted is proposed too, so that its
        failure is recorded.
        """
        found: list[Candidate] = []
        while len(found) < count and not self.exhausted:
            aside, proposed = self._put_aside, len(found)
            for point, features in self._ranked(count - len(found)):
                candidate = self._lower(point, features)
                if candidate is not None and self._is_new(candidate):
                    found.append(candidate)
            fresh = len(found) > proposed
            self._put_aside = 0 if fresh else self._put_aside
            self._empty_rounds = 0 if fresh or self._put_aside > aside else self._empty_rounds + 1
            self.exhausted = self._empty_rounds >= _EMPTY_ROUNDS or self._put_aside >= _MAX_PUT_ASIDE
        return found

    def tell(self, results: Iterable[tuple[Candidate, float | None]]) -> None:
        """Learn from the latencies of candidates in seconds; None for a trial that failed."""
        told = list(results)
        for candidate, latency in told:
            if candidate.program is not None:
                self._known[candidate.program.digest] = latency
            self._rank_among_elites(candidate.point, candidate.features, latency)
        if told:
            self._model.learn(self.kernel.id, [(candidate.features, latency) for candidate, latency in told])

    def _ranked(self, count: int) -> list[tuple[Point, Features]]:
        """Return ``count`` points that were not drawn before, the most promising first; they count as drawn."""
        pool = self._pool(count)
        features = [self._space.features(point) for point in pool]
        order = list(range(len(pool)))
        if self._model.trained and pool:
            scores = self._model.scores(self.kernel.id, features)
            order.sort(key=lambda i: -scores[i])
        chosen: list[int] = []
        while order and len(chosen) < count:
            index = self._random.choice(order) if self._random.random() < _RANDOM_PICK else order[0]
            order.remove(index)
            chosen.append(index)
        self._drawn.update(pool[i] for i in chosen)
        return [(pool[i], features[i]) for i in chosen]

    def _pool(self, count: int) -> list[Point]:
        """Return points that were not drawn before: defaults, lent ones, random ones, and mutations of the best."""
        given = (*self._space.defaults(), *self._lent)
        pool = dict.fromkeys(point for point in given if point not in self._drawn)
        rank = self._model.trained
        for _ in range(_RANDOM if rank else 2 * count):
            point = self._space.draw(self._random)
            if point is not None and point not in self._drawn:
                pool[point] = None
        # Other devices' best are parents too, the fewer the more points this device has tried.
        parents = [point for _, point in self._elites] + self._lent[: max(0, _ELITES - len(self._drawn) // _ELITES)]
        for _ in range(_MUTATED if rank else 2 * count):
            if not parents:
                break
            point = self._space.mutate(self._random.choice(parents), self._random)
            if point is not None and point not in self._drawn:
                pool[point] = None
        found = list(pool)
        if not rank:
            self._random.shuffle(found)
        return found

    def _lower(self, point: Point, features: Features) -> Candidate | None:
        """Return the candidate at a point; None where TVM rejects its schedule."""
        schedule = self._space.schedule(point, self._random.randrange(1, 2**31 - 1))
        if schedule is None:
            return None
        program, error = None, ""
        start = time.perf_counter()
        try:
            program = emit(schedule.mod, self._tier)
        except EmitError as failure:
            error = failure.message
        self.emit_s += time.perf_counter() - start
        return Candidate(trace_to_json(schedule), program, error, point, features | program_features(program))

    def _is_new(self, candidate: Candidate) -> bool:
        """Return whether the candidate is to be tried; rank its point if its program's latency is known."""
        if candidate.program is None:
            return True
        digest = candidate.program.digest
        if digest not in self._known:
            self._known[digest] = None  # not to be proposed again while it is measured
            if not surely_exceeds(candidate.program, self._max_thread_iterations):
                return True
            self._put_aside += 1
            return False
        self._rank_among_elites(candidate.point, candidate.features, self._known[digest])
        return False

    def _rank_among_elites(self, point: Point, features: Features, latency: float | None) -> None:
        if latency is not None:
            key = latency * size_penalty(features)
            ranked = sorted([*self._elites, (key, point)], key=lambda elite: elite[0])
            self._elites = ranked[:_ELITES]

    def _recall(self, tried: Sequence[TrialSummary]) -> None:
        """Learn from trials of earlier sessions."""
        results = []
        for trial in tried:
            if trial.program_digest:
                best = self._known.get(trial.program_digest)
                self._known[trial.program_digest] = _faster(best, trial.latency_s)
            point = self._space.point_of(trial.trace)
            if point is not None:
                features = self._space.features(point)
                self._drawn.add(point)
                self._rank_among_elites(point, features, trial.latency_s)
                results.append((features, trial.latency_s))
        self._model.learn(self.kernel.id, results)

    def _learn_from(self, lent: Sequence[Lent]) -> list[Point]:
        """Learn from other devices' schedules, and return the best points, each device's relative to its own best."""
        best: dict[tuple[str, ...], float] = {}
        points: dict[Point, float] = {}
        fresh = []
        for one in lent:
            point, seconds = self._space.point_of(one.trace), one.example.latency_s
            if point is None or seconds is None:
                continue
            if not one.known:
                fresh.append(replace(one.example, features=self._space.features(point)))
            best.setdefault(one.example.group, seconds)
            ratio = seconds / best[one.example.group]
            points[point] = min(points.get(point, ratio), ratio)
        self._model.know(fresh)
        return sorted(points, key=lambda point: points[point])[:_LENT_POINTS]


def _faster(one: float | None, other: float | None) -> float | None:
    times = [t for t in (one, other) if t is not None]
    return min(times, default=None)
