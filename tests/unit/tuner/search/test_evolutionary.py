"""Search proposes legal schedules, none twice, and learns from what it is told. The device is a function here."""

from __future__ import annotations

import logging
import math
import random
import sys
from typing import Any

import pytest
import tvm
from tuning_kernels import conv2d, matmul, softmax, three_elements, transpose
from tvm.s_tir import Schedule

from wgtune.database.schema.records import TrialKind, TrialSummary
from wgtune.database.tvm.traces import trace_values
from wgtune.devices.limits import TIERS
from wgtune.devices.quirks import Quirks
from wgtune.devices.wgsl_loops import surely_exceeds
from wgtune.support.enums import TrialState
from wgtune.tuner.codegen.traces import replay, schedulable_module
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel
from wgtune.tuner.search.cost_model import CostModel, Example
from wgtune.tuner.search.design_space import ChoiceKnob, Decision, Sketch, TileKnob
from wgtune.tuner.search.evolutionary import Candidate, KernelSearch
from wgtune.tuner.search.kernel_space import search_context, sketches
from wgtune.tuner.search.knowledge import Lent

TIER = TIERS["default"]


def pretend(candidate: Candidate) -> float | None:
    """A latency that a digest decides, so that it is the same wherever the program turns up."""
    return None if candidate.program is None else 1e-3 * (1 + int(candidate.program.digest[:4], 16) / 65536)


def space(kernel: Kernel) -> tuple[tvm.IRModule, list[Sketch], list[Any]]:
    module = schedulable_module(kernel)
    context, postprocs = search_context(module, TIER)
    return module, sketches(module, TIER, context), postprocs


@pytest.mark.parametrize("make", [matmul, conv2d])
def test_most_of_what_is_drawn_is_legal(make):
    """Blind draws of these are legal once in 20 to 60 times: what a sketch rejects must make the difference."""
    module, (sketch,), postprocs = space(make())
    rng = random.Random(0)
    legal = 0
    for seed in range(1, 21):
        decisions = sketch.draw(rng)
        assert decisions is not None
        schedule = Schedule(module, seed=seed, error_render_level="none")
        sketch.trace(decisions).apply_to_schedule(schedule, remove_postproc=True)
        schedule.enter_postproc()
        legal += all(postproc.apply(schedule) for postproc in postprocs)
    assert legal >= 18


def repeats_much(sketch: Sketch, decisions: tuple[Decision, ...]) -> bool:
    """Whether a schedule is legal, but turned down because it writes code out at length."""
    choices = [k.candidates[d] for k, d in zip(sketch.knobs, decisions, strict=True) if isinstance(k, ChoiceKnob)]
    vthreads = [d[1] for d in decisions if isinstance(d, tuple) and len(d) == 5]
    return max(choices) > 64 or math.prod(vthreads) > 16


def test_what_a_sketch_rejects_is_illegal():
    """A filter that rejects too much would hide part of the space for ever."""
    module, (sketch,), postprocs = space(matmul())
    rng = random.Random(1)
    rejected = 0
    while rejected < 20:
        decisions = tuple(knob.draw(rng) for knob in sketch.knobs)
        if sketch.fits(decisions) or repeats_much(sketch, decisions):
            continue
        rejected += 1
        schedule = Schedule(module, seed=1, error_render_level="none")
        sketch.trace(decisions).apply_to_schedule(schedule, remove_postproc=True)
        schedule.enter_postproc()
        assert not all(postproc.apply(schedule) for postproc in postprocs), decisions


def test_decisions_survive_the_trace():
    module, (sketch,), _ = space(conv2d())
    decisions = sketch.draw(random.Random(2))
    assert decisions is not None
    schedule = Schedule(module, seed=1)
    sketch.trace(decisions).apply_to_schedule(schedule, remove_postproc=True)
    assert sketch.decisions_of(trace_values(schedule.trace)) == decisions


def test_mutations_keep_the_extent_and_change_something():
    _, (sketch,), _ = space(matmul())
    rng = random.Random(3)
    decisions = sketch.draw(rng)
    assert decisions is not None
    for _ in range(50):
        changed = sketch.mutate(decisions, rng)
        assert changed is not None and changed != decisions and sketch.fits(changed)
        for knob, value in zip(sketch.knobs, changed, strict=True):
            if isinstance(knob, TileKnob):
                assert isinstance(value, tuple)
                assert math.prod(value) == knob.extent
        decisions = changed


@pytest.mark.parametrize("make", [matmul, conv2d, softmax])
def test_no_program_is_proposed_twice(make):
    search = KernelSearch(make(), TIER)
    digests = []
    for _ in range(3):
        candidates = search.propose(4)
        assert len(candidates) == 4
        digests += [c.program.digest for c in candidates if c.program]
        search.tell([(c, pretend(c)) for c in candidates])
    assert len(set(digests)) == len(digests) >= 10


def test_a_candidate_is_replayed_from_its_trace():
    kernel = conv2d()
    for candidate in KernelSearch(kernel, TIER).propose(4):
        assert candidate.program is not None
        assert emit_wgsl(replay(kernel, candidate.trace).mod, TIER).digest == candidate.program.digest


def test_programs_keep_the_tier():
    for candidate in KernelSearch(conv2d(), TIER).propose(8):
        assert candidate.program is not None and TIER.violations(candidate.program.needs) == []


def test_programs_that_loop_for_longer_than_a_limit_are_put_aside():
    """Only on a device with such a limit, and with the same seed the others are still proposed."""
    limit = 40
    free = KernelSearch(conv2d(), TIER, seed=3).propose(12)
    long = {c.trace for c in free if c.program and surely_exceeds(c.program, limit)}
    assert 0 < len(long) < len(free)
    search = KernelSearch(conv2d(), TIER, seed=3, quirks=Quirks(max_thread_iterations=limit))
    kept = search.propose(12)
    assert len(kept) == 12
    assert not [c for c in kept if c.program and surely_exceeds(c.program, limit)]
    assert {c.trace for c in free} - long <= {c.trace for c in kept}


def test_a_limit_that_nothing_keeps_ends_the_search():
    search = KernelSearch(conv2d(), TIER, quirks=Quirks(max_thread_iterations=-1))
    assert search.propose(4) == [] and search.exhausted


def test_few_schedules_end_the_search():
    search = KernelSearch(three_elements(), TIER)
    found = []
    for _ in range(10):
        candidates = search.propose(4)
        found += candidates
        search.tell([(c, pretend(c)) for c in candidates])
        if search.exhausted:
            break
    assert search.exhausted
    assert 1 <= len(found) <= 8
    assert search.propose(4) == []


def summaries(results: list[tuple[Candidate, float | None]]) -> list[TrialSummary]:
    return [
        TrialSummary(
            number,
            TrialKind.SEARCH,
            TrialState.OK if latency else TrialState.BUILD_ERROR,
            candidate.program.digest if candidate.program else "",
            candidate.trace,
            latency,
        )
        for number, (candidate, latency) in enumerate(results)
    ]


def test_a_later_search_repeats_nothing_and_knows_the_best():
    kernel = matmul()
    first = KernelSearch(kernel, TIER)
    results = [(c, pretend(c)) for c in first.propose(12)]
    first.tell(results)
    later = KernelSearch(kernel, TIER, tried=summaries(results))
    known = {c.program.digest for c, _ in results if c.program}
    fresh = later.propose(12)
    assert not known & {c.program.digest for c in fresh if c.program}
    best = min((r for r in results if r[1] is not None), key=lambda r: r[1])
    assert later._elites[0][1] == best[0].point


def test_what_other_devices_lend_is_ranked_first_and_taught():
    """The best point that another device lends is among the first proposals, and the model knows its times."""
    kernel = matmul()
    donor = KernelSearch(kernel, TIER, seed=9)
    given = [c for _ in range(5) for c in donor.propose(4) if c.program]

    def threads(candidate: Candidate) -> float:
        return 1e-3 * 2 ** -candidate.features["point.threads"]

    given.sort(key=threads)
    lent = [Lent(c.trace, Example((kernel.id, "other"), {}, {}, threads(c)), False) for c in given]
    model = CostModel()
    search = KernelSearch(kernel, TIER, model=model, lent=lent)
    assert model.trained
    first = search.propose(8)
    chance = KernelSearch(kernel, TIER).propose(8)
    assert sum(map(threads, first)) < 0.5 * sum(map(threads, chance))
    assert {c.program.digest for c in first if c.program} & {c.program.digest for c in given[:8] if c.program}


def test_the_same_seed_and_answers_propose_the_same():
    def run() -> list[str]:
        search, traces = KernelSearch(matmul(), TIER, seed=5), []
        for _ in range(2):
            candidates = search.propose(4)
            search.tell([(c, pretend(c)) for c in candidates])
            traces += [c.trace for c in candidates]
        return traces

    assert run() == run()
    assert run()[:4] != [c.trace for c in KernelSearch(matmul(), TIER, seed=6).propose(4)]


def test_a_foreign_trace_is_no_reason_to_fail():
    foreign = TrialSummary(1, TrialKind.SEARCH, TrialState.OK, "x", '[[["NoSuchInstruction",[],[],[]]],[]]', 1.0)
    assert len(KernelSearch(matmul(), TIER, tried=[foreign]).propose(2)) == 2


def test_learning_proposes_faster_schedules_than_chance():
    """The pretended device likes short programs: what is proposed late must suit it better than random draws do."""

    def cost(candidate: Candidate) -> float:
        assert candidate.program is not None
        return 1e-6 * sum(len(shader.source) for shader in candidate.program.shaders)

    def run(learn: bool, seed: int) -> float:
        search, costs = KernelSearch(matmul(), TIER, seed=seed), []
        for _ in range(8):
            candidates = [c for c in search.propose(4) if c.program]
            costs += [cost(c) for c in candidates]
            if learn:
                search.tell([(c, cost(c)) for c in candidates])
        return sum(costs[-12:])

    seeds = range(1, 5)
    assert sum(run(True, seed) for seed in seeds) < 0.8 * sum(run(False, seed) for seed in seeds)


def test_nothing_is_printed_and_the_slow_intrinsics_stay_out(capfd, caplog):
    with caplog.at_level(logging.DEBUG):
        search = KernelSearch(transpose(), TIER)
        search.tell([(c, pretend(c)) for c in search.propose(4)])
        search.propose(4)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    assert "tvm.s_tir.tensor_intrin.cuda" not in sys.modules
