"""The confidence interval of a median."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from wgtune.support.order_statistics import Interval, median_error, median_interval


@pytest.mark.parametrize(
    # Ranks from published tables of distribution-free intervals at 95 % (counted from 1, from either end).
    ("count", "rank"),
    [(5, None), (6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (50, 18), (100, 40)],
)
def test_ranks_are_those_of_the_tables(count, rank):
    samples = [float(i) for i in range(1, count + 1)]
    found = median_interval(list(reversed(samples)))
    assert found == (None if rank is None else Interval(float(rank), float(count + 1 - rank)))


def test_the_interval_holds_the_median_as_often_as_it_says():
    draw = random.Random(1)
    hits = 0
    for _ in range(2000):
        interval = median_interval([draw.lognormvariate(0, 0.5) for _ in range(15)])
        assert interval is not None
        hits += interval.low <= 1.0 <= interval.high
    assert 0.95 <= hits / 2000 < 0.98  # 96.5 % for fifteen samples


def test_the_error_is_of_the_farther_end_and_unknown_where_samples_are_few():
    samples = [1.0, 1.0, 1.0, 1.0, 1.0, 1.3]
    assert median_error(samples) == pytest.approx(0.3)
    assert median_error(samples[:5]) == math.inf and median_error([]) == math.inf
    assert statistics.median(samples) == 1.0


def test_intervals_that_touch_overlap():
    assert Interval(1, 2).overlaps(Interval(2, 3)) and not Interval(1, 2).overlaps(Interval(2.1, 3))
