"""A kernel's points: found again from stored traces, and described by features before they are replayed."""

from __future__ import annotations

import json
import math
import random

import pytest
from tuning_kernels import conv2d, group_norm, matmul, softmax, transpose

from wgtune.devices.limits import TIERS, Tier
from wgtune.tuner.codegen.traces import trace_to_json
from wgtune.tuner.ir import Kernel
from wgtune.tuner.search.kernel_space import KernelSpace
from wgtune.tuner.search.rule_sketch import RuleSketch

TIER = TIERS["default"]
KERNELS = {
    "matmul": matmul(),
    "conv2d": conv2d(),
    "softmax": softmax(4, 64, 64),
    "group_norm": group_norm(4, 1, 16, 16, 16),
    "transpose": transpose(),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_stored_trace_tells_its_point_and_so_its_features(kernel: Kernel) -> None:
    space, chance, sketches = KernelSpace(kernel, TIER), random.Random(0), set()
    for _ in range(12):
        point = space.draw(chance)
        assert point is not None
        schedule = space.schedule(point, 1)
        if schedule is not None:
            sketches.add(point.sketch)
            found = KernelSpace(kernel, TIER, seed=2).point_of(trace_to_json(schedule))
            assert found == point
            features = space.features(point)
            assert features["kernel.outputs"] > 0 and all(map(math.isfinite, features.values()))
    assert len(sketches) > 1


def test_rules_and_sketches_have_names_in_common() -> None:
    space = KernelSpace(matmul(), TIER)
    names = []
    for sketch in space.sketches:
        decisions = sketch.draw(random.Random(0))
        assert decisions is not None
        names.append({name for name in sketch.features(decisions) if name.startswith("point.")})
    assert isinstance(space.sketches[0], RuleSketch)
    assert {"point.threads", "point.groups", "point.results", "point.shared_bytes", "point.cost"} <= names[0] & names[1]


def test_features_tell_what_the_schedule_does() -> None:
    space = KernelSpace(matmul(64, 96, 48), TIER)
    (default,) = space.defaults()
    sketch = space.sketches[default.sketch]
    assert isinstance(sketch, RuleSketch)
    values, features = sketch.space.defaults, space.features(default)
    assert 2 ** features["point.threads"] - 1 == pytest.approx(values["threads_r"] * values["threads_c"], rel=1e-3)
    results = values["thread_rows"] * values["thread_columns"]
    assert 2 ** features["point.results"] - 1 == pytest.approx(results, rel=1e-3)
    assert 2 ** features["point.lanes"] - 1 == pytest.approx(64 * 96 / results, rel=1e-3)
    assert features["kernel.is.matmul"] == features["is.matmul"] == 1.0


def test_a_point_beyond_the_limits_is_none() -> None:
    space = KernelSpace(matmul(256, 256, 64), TIER)
    (default,) = space.defaults()
    schedule = space.schedule(default, 1)
    assert schedule is not None
    small = Tier("small", {**TIER.limits, "maxComputeInvocationsPerWorkgroup": 16})
    assert space.point_of(trace_to_json(schedule)) == default
    assert KernelSpace(matmul(256, 256, 64), small).point_of(trace_to_json(schedule)) is None


@pytest.mark.parametrize(
    "trace", ["", "[", "7", "[[], []]", json.dumps([[["Annotate", ["b0", "{"], ["wgtune.rule"], []]], []])]
)
def test_a_foreign_trace_has_no_point(trace: str) -> None:
    assert KernelSpace(matmul(), TIER).point_of(trace) is None


def test_damaged_decisions_have_no_point() -> None:
    space = KernelSpace(matmul(), TIER)
    chance = random.Random(0)
    while (point := space.draw(chance)) is None or isinstance(space.sketches[point.sketch], RuleSketch):
        pass
    schedule = space.schedule(point, 1)
    assert schedule is not None
    values = json.loads(trace_to_json(schedule))
    for damage in ("many", -1, [0, 0], [1, 2, 3, 4, 5], None):
        changed = [values[0], [[index, damage] for index, _ in values[1]]]
        assert space.point_of(json.dumps(changed)) is None
