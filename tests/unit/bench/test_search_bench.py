"""The search benchmark's figures."""

from __future__ import annotations

import math
import sys

import pytest
from folders import REPOSITORY
from tuning_kernels import matmul

sys.path.insert(0, str(REPOSITORY))

from tests.bench.search import Comparison, ratio, until


def test_trials_until_a_goal() -> None:
    taken = [4.0, math.inf, 2.0, 1.0]
    assert until(taken, 4.0) == 0 and until(taken, 2.5) == 2 and until(taken, 1.0) == 3
    assert until(taken, 0.5) == 4, "one more than were made after the baseline"


def test_the_ratio_is_a_geometric_mean() -> None:
    kernel = matmul()
    found = [Comparison("a", kernel, 15, 3, 1.0), Comparison("b", kernel, 7, 7, 1.0)]
    assert ratio(found) == pytest.approx(0.5)
    assert ratio([Comparison("a", kernel, 0, 0, 1.0)]) == 1.0
