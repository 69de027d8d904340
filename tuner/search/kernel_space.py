"""All schedules of a kernel as points: the spaces of the project's rules beside MetaSchedule's sketches."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from ...database.tvm.traces import is_trace
from ...devices.limits import Tier
from ...devices.quirks import NO_QUIRKS, Quirks
from ..codegen.targets import search_target, workgroup_limits
from ..codegen.traces import schedulable_module
from ..codegen.tvm_native import NativeTier
from ..ir import Kernel
from ..schedule_rules import rule_spaces, ruled_alone
from .design_space import Sketch
from .features import Features, kernel_features
from .knobs import Decision
from .rule_sketch import RuleSketch


@dataclass(frozen=True)
class Point:
    """A point of a kernel's design space: decisions in one of its sketches."""

    sketch: int
    decisions: tuple[Decision, ...]


class KernelSpace:
    """The design space of one kernel.

    Args:
        kernel: the kernel to schedule.
        tier: the limits that programs keep.
        quirks: of the device's driver; the rules' defaults are chosen for it.
        seed: of MetaSchedule's generator.

    Attributes:
        sketches: the rules' spaces first, then MetaSchedule's; empty where there is nothing to choose.
    """

    def __init__(self, kernel: Kernel, tier: Tier, quirks: Quirks = NO_QUIRKS, seed: int = 1) -> None:
        self._module = schedulable_module(kernel)
        context, self._postprocs = search_context(self._module, tier, seed)
        rules = rule_sketches(self._module, tier, quirks)
        stock = [] if ruled_alone(self._module) else sketches(self._module, tier, context)
        self.sketches: list[Sketch | RuleSketch] = [*rules, *stock]
        # Random points come from the project's rules and from MetaSchedule's sketches in equal parts.
        others = len(self.sketches) - len(rules)
        self._weights = [1.0 / count for count in (len(rules), others) for _ in range(count)]
        self._kernel_features = kernel_features(kernel, [sketch.space for sketch in rules])

    def defaults(self) -> list[Point]:
        """Return the rules' choices for the device, an unknown GPU unless a quirk says more."""
        return [
            Point(index, sketch.default)
            for index, sketch in enumerate(self.sketches)
            if isinstance(sketch, RuleSketch) and sketch.fits(sketch.default)
        ]

    def draw(self, rng: random.Random) -> Point | None:
        """Draw a point that fits the limits; None where none was found."""
        if not self.sketches:
            return None
        index = rng.choices(range(len(self.sketches)), self._weights)[0]
        decisions = self.sketches[index].draw(rng)
        return None if decisions is None else Point(index, decisions)

    def mutate(self, point: Point, rng: random.Random) -> Point | None:
        """Return a point near ``point`` that fits the limits; None where none was found."""
        decisions = self.sketches[point.sketch].mutate(point.decisions, rng)
        return None if decisions is None else Point(point.sketch, decisions)

    def schedule(self, point: Point, seed: int) -> Schedule | None:
        """Return the schedule at ``point``, postprocessed; None where TVM rejects it.

        The seed is for the rare sampling instruction that is no knob, such as a compute location.
        """
        sketch = self.sketches[point.sketch]
        try:
            if isinstance(sketch, RuleSketch):
                return sketch.schedule(point.decisions)
            schedule = Schedule(self._module, seed=seed, error_render_level="none", enable_check=False)
            sketch.trace(point.decisions).apply_to_schedule(schedule, remove_postproc=True)
            schedule.enter_postproc()
            legal = all(postproc.apply(schedule) for postproc in self._postprocs)
        except Exception:  # TVM raises several kinds where a decision does not fit
            return None
        return schedule if legal else None

    def point_of(self, trace: str) -> Point | None:
        """Return the point whose schedule has this trace (JSON text), wherever it was made; None if it has none here.

        A point that this space's limits do not allow is none.
        """
        try:
            values = json.loads(trace)
        except (ValueError, RecursionError):
            return None
        if not is_trace(values):
            return None
        for index, sketch in enumerate(self.sketches):
            decisions = sketch.decisions_of(values)
            if decisions is not None and sketch.fits(decisions):
                return Point(index, decisions)
        return None

    def features(self, point: Point) -> Features:
        """Return the features of the kernel and of ``point``."""
        return self._kernel_features | self.sketches[point.sketch].features(point.decisions)


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


def rule_sketches(module: tvm.IRModule, tier: Tier, quirks: Quirks) -> list[RuleSketch]:
    """Return the spaces of the project's rules that apply; none for a CPU, which has no workgroups."""
    if isinstance(tier, NativeTier) and tier.is_cpu:
        return []
    return [RuleSketch(space) for space in rule_spaces(module, workgroup_limits(tier, quirks))]


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
