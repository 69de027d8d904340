"""Schedules measured in rounds: what they take, which is surely faster, and how far two orders agree."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from wgtune.database.schema.records import Record, TrialKind
from wgtune.reports.rank_agreement import Times, agreement, kendall_tau, pooled


def made(*rows, spread=0.0):
    """Times of schedules by round, in seconds; nine samples each, up to ``spread`` off their median."""

    def one(seconds):
        if seconds is None:
            return None
        found = tuple(seconds * (1 + spread * step / 4) for step in range(-4, 5))
        return Record(
            **{field.name: None for field in fields(Record)}
            | {"samples_s": found, "latency_s": statistics.median(found), "kind": TrialKind.CHECK}
        )

    return Times(tuple(tuple(map(one, row)) for row in rows))


def test_one_round_is_taken_as_it_is():
    times = made([1e-3], [2e-3], [5e-3])
    assert times.seconds == pytest.approx((1e-3, 2e-3, 5e-3)) and times.halves() is None


def test_what_concerns_a_whole_round_changes_nothing():
    """Rounds of different speed: a raw median would take the first from one round and the second from another."""
    speeds = (1.0, 3.0, 2.0, 1.1, 1.7, 2.2)
    times = made([1e-3 * speed for speed in speeds], [1.01e-3 * speed for speed in speeds], [2e-3 * s for s in speeds])
    first, second, third = times.seconds
    assert second / first == pytest.approx(1.01) and third / first == pytest.approx(2)
    assert times.order(0, 1) == -1 and times.order(1, 0) == 1
    assert max(times.errors) < 1e-9


def test_one_unlucky_process_does_not_count():
    times = made([1e-3] * 8 + [1.5e-3], [1.1e-3] * 9)
    assert times.seconds[0] < times.seconds[1] and times.order(0, 1) == -1


def test_the_order_is_open_where_rounds_disagree():
    times = made([1.0, 1.2, 1.0, 1.2, 1.0, 1.2, 1.0, 1.2], [1.1] * 8)
    assert times.order(0, 1) == 0


def test_few_rounds_go_by_their_samples():
    near, far = made([1.0], [1.015], spread=1e-3), made([1.0, 1.0], [1.2, 1.2], spread=0.05)
    assert near.order(0, 1) == 0  # apart, but by less than sampling aims at
    assert far.order(0, 1) == -1
    assert made([1.0], [1.2], spread=0.5).order(0, 1) == 0


def test_failures_and_rounds_that_were_cut_short():
    times = made([1.0, None, 1.0, 4.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0])
    assert times.seconds == pytest.approx((1.0, 2.0, 3.0))  # of the last round only a third is there
    assert made([None, 1.0], [2.0], [3.0]).seconds[0] == 1.0
    assert made([1.0, None], [2.0, 2.0]).halves() is None
    with pytest.raises(ValueError):
        _ = made([None], [1.0]).seconds[0]


def test_more_rounds_tell_more_apart():
    """Ten schedules 1 % apart, each process 2 % off and each round up to 20 %: with 16 rounds the order comes out."""
    chance = random.Random(3)

    def measured(rounds):
        speeds = [chance.uniform(1, 1.2) for _ in range(rounds)]
        return made(*([(1 + one / 100) * speed * chance.gauss(1, 0.02) for speed in speeds] for one in range(10)))

    def tau(rounds):
        return statistics.mean(agreement(measured(rounds), measured(rounds)).untied_tau for _ in range(20))

    assert tau(1) < 0.55 < tau(4) < 0.8 < tau(16)


def test_pairs_are_pooled_by_their_number():
    same, reverse = made([1.0], [2.0], [3.0]), made([3.0], [2.0], [1.0])
    one = agreement(made([1.0], [2.0]), made([1.0], [2.0]))
    both = pooled([agreement(same, reverse), one])
    assert (both.pairs, both.clear, both.kept) == (4, 4, 1) and both.tau == both.untied_tau == pytest.approx(-0.5)
    assert both.clear_tau == -0.5 and pooled([]).tau is None and pooled([]).clear_tau is None


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=9))
def test_tau_with_exact_ties_is_scipys(times):
    found, wanted = kendall_tau(times, 0.0), float(kendalltau(*zip(*times, strict=True)).statistic)
    assert found is None if math.isnan(wanted) else found == pytest.approx(wanted)


def test_a_tie_in_one_of_the_two_measurements_counts_for_neither_order():
    """By hand: of three pairs one is tied in the second measurement, the others agree: 2 / √(3 · 2)."""
    assert kendall_tau([(1.0, 1.0), (2.0, 2.0), (3.0, 2.03)], 0.02) == pytest.approx(2 / math.sqrt(6))
    assert kendall_tau([(1.0, 2.0), (1.01, 1.0)], 0.02) is None
