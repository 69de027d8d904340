"""The cost model: relative to the best of a group, from others first, then from the device itself."""

from __future__ import annotations

import random

import pytest

from wgtune.tuner.search.cost_model import CostModel, Example, size_penalty, targets
from wgtune.tuner.search.features import SIZE, Features

POINTS: list[Features] = [{"point.threads": float(n % 8), "value.step": float(n // 8)} for n in range(48)]


def more_threads(point: Features) -> float:
    return 1e-3 * 2 ** -point["point.threads"]


def fewer_threads(point: Features) -> float:
    return 1e-3 * 2 ** point["point.threads"]


def examples(device: float = 0.0) -> list[Example]:
    return [Example(("k", "other"), {"device.flops_per_s": device}, point, more_threads(point)) for point in POINTS]


def best(model: CostModel) -> float:
    scores = model.scores("k", POINTS)
    return POINTS[scores.index(max(scores))]["point.threads"]


def test_targets_are_relative_to_the_best_of_a_group_and_failures_are_the_worst() -> None:
    given = [
        Example(("a",), {}, {}, 1.0),
        Example(("a",), {}, {}, 2.0),
        Example(("b",), {}, {}, 100.0),
        Example(("b",), {}, {}, None),
        Example(("a",), {}, {}, 1e6),
    ]
    assert targets(given) == [0.0, -1.0, 0.0, -4.0, -4.0]


def test_a_longer_program_must_be_faster() -> None:
    assert size_penalty({SIZE: 14.0}) / size_penalty({SIZE: 13.0}) == pytest.approx(1.014, abs=1e-3)
    near = [Example(("a",), {}, {SIZE: 16.0}, 1.00), Example(("a",), {}, {SIZE: 12.0}, 1.03)]
    far = [Example(("a",), {}, {SIZE: 16.0}, 1.00), Example(("a",), {}, {SIZE: 12.0}, 1.20)]
    assert targets(near)[1] == 0.0 and targets(near)[0] < 0
    assert targets(far)[0] == 0.0


def test_it_starts_from_others_and_believes_its_own_results_more() -> None:
    model = CostModel()
    assert not model.trained
    model.know(examples())
    assert model.trained and best(model) == 7
    model.learn("k", [(point, fewer_threads(point)) for point in POINTS])
    assert best(model) == 0


def test_it_learns_from_failures() -> None:
    model = CostModel()
    model.learn("k", [(point, None if point["point.threads"] > 4 else more_threads(point)) for point in POINTS])
    assert best(model) == 4


def test_the_same_examples_give_the_same_scores() -> None:
    chance = random.Random(0)
    results = [(point, chance.random()) for point in POINTS]

    def scores() -> list[float]:
        model = CostModel({"device.software": 1.0})
        model.know(examples())
        model.learn("k", results)
        return model.scores("k", POINTS)

    assert scores() == scores()


def test_what_is_known_only_of_a_lowered_program_is_no_feature() -> None:
    model = CostModel()
    model.learn("k", [({**point, SIZE: 10.0 + n % 4}, more_threads(point)) for n, point in enumerate(POINTS)])
    one, other = model.scores("k", [{**POINTS[3], SIZE: 2.0}, {**POINTS[3], SIZE: 20.0}])
    assert one == other
