"""Evolutionary search for one kernel's schedules, with MetaSchedule's sketches, postprocessors and cost model.

MetaSchedule's own evolutionary strategy replays some hundreds of traces a round. With WebGPU's limits it needs 3 to
90 s on two cores to propose 8 convolutions, more than measuring all of them takes. Here decisions are checked before
they are replayed (see `wgtune.tuner.search.design_space`), and pools are small: a round takes a few dozen replays.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.cost_model.xgb_model import XGBConfig, XGBModel

from ...database.schema.records import TrialSummary
from ...database.tvm.traces import ENTRY
from ...devices.limits import Tier
from ...devices.program import AnyProgram
from ...devices.wgsl_loops import surely_exceeds
from ...support.errors import WgtuneError
from ..codegen.emit import emit
from ..codegen.targets import search_target, workgroup_limits
from ..codegen.traces import replay, schedulable_module, trace_to_json
from ..codegen.tvm_native import NativeTier
from ..codegen.wgsl import EmitError
from ..ir import Kernel
from ..schedule_rules import rule_spaces
from .design_space import Sketch
from .knobs import Decision
from .rule_sketch import RuleSketch

_POOL = 4
"""Replayed schedules for each proposed one, once the cost model is trained."""

_MODEL_WARMUP = 24
"""Results of all kernels together after which the cost model ranks schedules."""

_ELITES = 6
"""Number of best results that are mutated."""

_MUTATED = 0.5
"""Share of a pool that mutates one of the best; the rest is drawn at random."""

_RANDOM_PICK = 0.2
"""Share of proposals picked at random, so that the cost model learns where it is wrong."""

_EMPTY_ROUNDS = 8
"""Rounds without a new program after which a kernel is exhausted."""

_MAX_PUT_ASIDE = 64
"""Programs put aside in a row, because a driver would run them wrongly, after which a kernel is exhausted."""

_RECALLED = 64
"""Earlier trials, the best and the latest, from which a new search learns; replaying one takes some 20 ms."""

# TVM logs each round here; the session's events tell the user what matters of it. A handler without a name would break
# `tune_tir` in the same process, whose own logging set-up reads the name of every handler.
logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.CRITICAL)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A proposed schedule. ``program`` is None where none could be emitted; ``error`` then says why."""

    schedule: Schedule
    trace: str
    program: AnyProgram | None
    error: str
    point: _Point


@dataclass(frozen=True)
class _Point:
    """A point of the design space."""

    sketch: int
    decisions: tuple[Decision, ...]


class CostModel:
    """MetaSchedule's XGBoost model over features of the lowered loops, shared by all kernels of a session.

    What it learns from one kernel's tilings helps to rank those of the next.
    """

    def __init__(self, threads: int = 1) -> None:
        self._model = XGBModel(config=XGBConfig(nthread=threads), num_warmup_samples=_MODEL_WARMUP)

    @property
    def trained(self) -> bool:
        """Whether it has enough results to rank candidates."""
        return self._model.booster is not None and self._model.data_size >= _MODEL_WARMUP

    def rank(self, context: ms.TuneContext, candidates: list[ms.MeasureCandidate]) -> list[float]:
        """Return a score for each candidate, higher for faster."""
        return [float(score) for score in self._model.predict(context, candidates)]

    def learn(
        self, context: ms.TuneContext, candidates: list[ms.MeasureCandidate], latencies: Sequence[float | None]
    ) -> None:
        """Learn from measured ``latencies`` in seconds, None for a candidate that failed."""
        results = [
            ms.runner.RunnerResult(None, "failed") if seconds is None else ms.runner.RunnerResult([seconds], None)
            for seconds in latencies
        ]
        self._model.update(context, candidates, results)


class KernelSearch:
    """Proposes schedules of one kernel, no GPU program twice.

    Args:
        kernel: the kernel to schedule.
        tier: the limits that programs keep.
        seed: seeds the random state; the same seed, earlier trials and results give the same proposals.
        model: the session's cost model; a new one by default.
        tried: earlier trials of this kernel on this device. Their programs are not proposed again, and their latencies
            guide the search. Their number changes the random state.
        max_thread_iterations: `Quirks.max_thread_iterations` of the device. A program whose threads surely loop for
            longer is not proposed.
    """

    def __init__(
        self,
        kernel: Kernel,
        tier: Tier,
        seed: int = 0,
        model: CostModel | None = None,
        tried: Sequence[TrialSummary] = (),
        max_thread_iterations: int | None = None,
    ) -> None:
        self.kernel = kernel
        self._max_thread_iterations = max_thread_iterations
        self._tier = tier
        self._model = model or CostModel()
        self._random = random.Random(f"{kernel.id}:{seed + len(tried)}")
        self._module = schedulable_module(kernel)
        self._args = ms.arg_info.ArgInfo.from_prim_func(self._module[ENTRY])
        self._context, self._postprocs = search_context(self._module, tier, self._random.randrange(1, 2**31 - 1))
        self._sketches: list[Sketch | RuleSketch] = [
            *rule_sketches(self._module, tier),
            *sketches(self._module, tier, self._context),
        ]
        rules = sum(isinstance(sketch, RuleSketch) for sketch in self._sketches)
        self._weights = [
            1.0 / rules if isinstance(sketch, RuleSketch) else 1.0 / (len(self._sketches) - rules)
            for sketch in self._sketches
        ]
        """Random points come from the project's rules and from MetaSchedule's sketches in equal parts."""
        self._drawn: set[_Point] = set()
        self._known: dict[str, float | None] = {}
        """Latency by program digest, None for a program that failed."""
        self._elites: list[tuple[float, _Point]] = []
        self._empty_rounds = 0
        self._put_aside = 0
        self.exhausted = not self._sketches
        """Whether no new schedule was found in the last rounds."""
        self.emit_s = 0.0
        """Seconds spent on emitting programs so far."""
        if tried:
            self._recall(tried)

    def propose(self, count: int) -> list[Candidate]:
        """Return up to ``count`` schedules whose programs were not tried, the most promising first.

        The list is empty when the kernel is exhausted. A schedule that cannot be emitted is proposed too, so that its
        failure is recorded.
        """
        found: list[Candidate] = []
        while len(found) < count and not self.exhausted:
            aside, pool = self._put_aside, self._pool(count - len(found))
            fresh = [c for c in map(self._lower, self._choose(pool, count - len(found))) if self._is_new(c)]
            found += fresh
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
            self._rank_among_elites(candidate.point, latency)
        if told:
            self._model.learn(self._context, [self._measurable(c.schedule) for c, _ in told], [s for _, s in told])

    def _pool(self, count: int) -> list[tuple[_Point, Schedule]]:
        """Return replayed schedules to choose ``count`` from: mutations of the best, and random ones."""
        size = count * _POOL if self._model.trained else count
        pool: list[tuple[_Point, Schedule]] = []
        for _ in range(2 * size):
            if len(pool) == size:
                break
            point = self._draw()
            if point is None:
                break
            schedule = self._replay(point)
            if schedule is not None:
                pool.append((point, schedule))
        return pool

    def _draw(self) -> _Point | None:
        """Draw a point of the design space that was not drawn before; None after many draws without one."""
        for _ in range(50):
            point = None
            if self._elites and self._random.random() < _MUTATED:
                parent = self._random.choice(self._elites)[1]
                decisions = self._sketches[parent.sketch].mutate(parent.decisions, self._random)
                point = None if decisions is None else _Point(parent.sketch, decisions)
            if point is None:
                index = self._random.choices(range(len(self._sketches)), self._weights)[0]
                decisions = self._sketches[index].draw(self._random)
                point = None if decisions is None else _Point(index, decisions)
            if point is not None and point not in self._drawn:
                self._drawn.add(point)
                return point
        return None

    def _replay(self, point: _Point) -> Schedule | None:
        """Return the schedule at ``point``, postprocessed; None where TVM rejects it."""
        # The seed is for the rare sampling instruction that is no knob, such as a compute location.
        seed = self._random.randrange(1, 2**31 - 1)
        schedule = Schedule(self._module, seed=seed, error_render_level="none", enable_check=False)
        try:
            sketch = self._sketches[point.sketch]
            if isinstance(sketch, RuleSketch):
                return sketch.schedule(point.decisions)
            sketch.trace(point.decisions).apply_to_schedule(schedule, remove_postproc=True)
            schedule.enter_postproc()
            legal = all(postproc.apply(schedule) for postproc in self._postprocs)
        except Exception:  # TVM raises several kinds where a decision does not fit
            return None
        return schedule if legal else None

    def _choose(self, pool: list[tuple[_Point, Schedule]], count: int) -> list[tuple[_Point, Schedule]]:
        if len(pool) <= count or not self._model.trained:
            return pool[:count]
        scores = self._model.rank(self._context, [self._measurable(schedule) for _, schedule in pool])
        order = sorted(range(len(pool)), key=lambda i: -scores[i])
        picked: list[int] = []
        while len(picked) < count:
            index = self._random.choice(order) if self._random.random() < _RANDOM_PICK else order[0]
            order.remove(index)
            picked.append(index)
        return [pool[i] for i in picked]

    def _lower(self, chosen: tuple[_Point, Schedule]) -> Candidate:
        point, schedule = chosen
        program, error = None, ""
        start = time.perf_counter()
        try:
            program = emit(schedule.mod, self._tier)
        except EmitError as failure:
            error = failure.message
        self.emit_s += time.perf_counter() - start
        return Candidate(schedule, trace_to_json(schedule), program, error, point)

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
        self._rank_among_elites(candidate.point, self._known[digest])
        return False

    def _rank_among_elites(self, point: _Point, latency: float | None) -> None:
        if latency is not None:
            ranked = sorted([*self._elites, (latency, point)], key=lambda elite: elite[0])
            self._elites = ranked[:_ELITES]

    def _measurable(self, schedule: Schedule) -> Any:
        return ms.MeasureCandidate(schedule, self._args)

    def _recall(self, tried: Sequence[TrialSummary]) -> None:
        """Learn from trials of earlier sessions."""
        for trial in tried:
            if trial.program_digest:
                best = self._known.get(trial.program_digest)
                self._known[trial.program_digest] = _faster(best, trial.latency_s)
        by_speed = sorted((t for t in tried if t.latency_s is not None), key=lambda t: t.latency_s or 0.0)
        chosen = {t.trial_id: t for t in [*by_speed[: _RECALLED // 2], *tried[-(_RECALLED // 2) :]]}
        schedules, latencies = [], []
        for trial in chosen.values():
            schedule = self._replay_stored(trial)
            if schedule is not None:
                schedules.append(self._measurable(schedule))
                latencies.append(trial.latency_s)
        if schedules:
            self._model.learn(self._context, schedules, latencies)

    def _replay_stored(self, trial: TrialSummary) -> Schedule | None:
        if not trial.trace:
            return None
        try:
            schedule = replay(self.kernel, trial.trace)
        except WgtuneError:  # a trace of another TVM; the search goes on without it
            return None
        for index, sketch in enumerate(self._sketches):
            decisions = sketch.decisions_of(schedule.trace)
            if decisions is not None:
                point = _Point(index, decisions)
                self._drawn.add(point)
                self._rank_among_elites(point, trial.latency_s)
                break
        return schedule


def _faster(one: float | None, other: float | None) -> float | None:
    times = [t for t in (one, other) if t is not None]
    return min(times, default=None)


def search_context(module: tvm.IRModule, tier: Tier, seed: int = 1) -> tuple[ms.TuneContext, list[Any]]:
    """Return MetaSchedule's context for a module, and the postprocessors that a replayed trace needs."""
    # The rules that follow from a CUDA target are those of its matrix units.
    rules = tier.rules if isinstance(tier, NativeTier) else "from-target"
    generator = ms.space_generator.PostOrderApply(sch_rules=rules, postprocs=rules, mutator_probs=rules)
    with _without_tensor_intrinsics():
        context = ms.TuneContext(
            module, target=search_target(tier), space_generator=generator, rand_state=seed, num_threads=1
        )
    return context, list(generator.postprocs)


def sketches(module: tvm.IRModule, tier: Tier, context: ms.TuneContext) -> list[Sketch]:
    """Return the sketches of a kernel: MetaSchedule's rules applied in post order."""
    limits = workgroup_limits(tier)
    return [Sketch(module, schedule.trace, limits) for schedule in context.generate_design_space()]


def rule_sketches(module: tvm.IRModule, tier: Tier) -> list[RuleSketch]:
    """Return the spaces of the project's rules that apply; none for a CPU, which has no workgroups."""
    if isinstance(tier, NativeTier) and tier.is_cpu:
        return []
    return [RuleSketch(space) for space in rule_spaces(module, workgroup_limits(tier))]


@contextmanager
def _without_tensor_intrinsics() -> Iterator[None]:
    """Keep `TuneContext` from importing the intrinsics of CUDA's, ROCm's and Hexagon's matrix units.

    Their import takes 15 s on two cores, and no rule for a WebGPU target uses one.
    """
    name = "tvm.s_tir.tensor_intrin"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]
