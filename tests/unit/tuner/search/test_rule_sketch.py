"""The parameters of a rule as a design space: near the default first, and every point within reach."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from tuning_kernels import conv2d, matmul, softmax

from wgtune.devices.limits import TIERS
from wgtune.devices.quirks import combined, known_quirks
from wgtune.tuner.codegen.targets import workgroup_limits
from wgtune.tuner.codegen.traces import schedulable_module
from wgtune.tuner.ir import Kernel
from wgtune.tuner.schedule_rules import rule_spaces
from wgtune.tuner.search.knobs import OrderedKnob
from wgtune.tuner.search.rule_sketch import RuleSketch

TIER = TIERS["default"]


def sketch() -> RuleSketch:
    (space,) = rule_spaces(schedulable_module(matmul(64, 96, 48)), workgroup_limits(TIER))
    return RuleSketch(space)


def test_a_mutation_takes_a_neighbour() -> None:
    knob, chance = OrderedKnob((1, 2, 4, 8, 16), (1.0,) * 5), random.Random(0)
    assert {knob.mutate(0, chance) for _ in range(50)} == {1, 2}
    assert {knob.mutate(2, chance) for _ in range(50)} == {0, 1, 3, 4}
    assert OrderedKnob((7,), (1.0,)).mutate(0, chance) == 0


def test_draws_lie_near_the_default_and_reach_every_candidate() -> None:
    made, chance = sketch(), random.Random(0)
    for knob, parameter in zip(made.knobs, made.space.parameters, strict=True):
        drawn = Counter(knob.draw(chance) for _ in range(3000))
        assert set(drawn) == set(range(len(parameter.candidates)))
        assert drawn.most_common(1)[0][0] == parameter.candidates.index(parameter.default)


def test_every_draw_fits() -> None:
    made, chance = sketch(), random.Random(0)
    for _ in range(20):
        decisions = made.draw(chance)
        assert decisions is not None and made.fits(decisions)


@pytest.mark.parametrize("kernel", [softmax(), matmul(), conv2d()], ids=["softmax", "matmul", "conv2d"])
@pytest.mark.parametrize("model", ["llvmpipe", "SwiftShader", "a GPU"])
def test_the_default_is_a_point_whatever_quirks_ask_for(model: str, kernel: Kernel) -> None:
    """Rows of a softmax that a CPU's adapter takes by default are more than a GPU's candidates go to."""
    limits = workgroup_limits(TIER, combined(known_quirks("vulkan", model)))
    for space in rule_spaces(schedulable_module(kernel), limits):
        found = RuleSketch(space)
        assert found.fits(found.default)
