"""Best time so far against trials: steps, trials until a share, means over kernels that did not all get there."""

from __future__ import annotations

import pytest

from wgtune.database.queries.search_history import SearchTrial
from wgtune.database.schema.records import TrialKind
from wgtune.reports.search_progress import (
    KernelSearch,
    Needed,
    Progress,
    Step,
    compared,
    marks,
    mean_curve,
    mean_needed,
    median_needed,
    progress,
)
from wgtune.tuner.kernel_names import KernelClass

BASE, SEARCH, TRANSFER = TrialKind.BASELINE, TrialKind.SEARCH, TrialKind.TRANSFER


def history(*trials: tuple[int, TrialKind, float | None]) -> list[SearchTrial]:
    return [SearchTrial(*one) for one in trials]


def search(best_s: float, trials: int, *steps: tuple[int, float], name: str = "matmul") -> KernelSearch:
    return KernelSearch(
        name, name, KernelClass.PRODUCT, Progress(False, trials, tuple(Step(*s) for s in steps)), best_s
    )


def test_the_baseline_is_trial_0_and_failures_and_transfers_count() -> None:
    made = progress(
        history((1, BASE, 4.0), (1, TRANSFER, 5.0), (1, SEARCH, None), (1, SEARCH, 2.0), (1, SEARCH, 3.0)), set()
    )
    assert made == Progress(False, 4, (Step(0, 4.0), Step(3, 2.0)))
    assert [made.at(trials) for trials in (0, 2, 3, 4)] == [4.0, 4.0, 2.0, 2.0]
    assert (made.until(4.0), made.until(3.0), made.until(1.0)) == (0, 3, None)


def test_before_the_first_time_that_one_counts_and_a_later_baseline_is_no_trial() -> None:
    made = progress(
        history((1, BASE, None), (1, SEARCH, None), (1, SEARCH, 3.0), (2, BASE, 2.0), (2, SEARCH, 9.0)), set()
    )
    assert made.steps == (Step(2, 3.0), Step(2, 2.0)) and made.trials == 3
    assert made.at(0) == 3.0 and made.at(2) == 2.0
    assert progress(history((1, SEARCH, 0.0)), set()).steps == ()


def test_a_search_ends_where_a_session_of_the_other_kind_goes_on() -> None:
    trials = history((1, BASE, 4.0), (2, SEARCH, 3.0), (3, SEARCH, 2.0), (2, SEARCH, 1.0))
    assert progress(trials, {3}) == Progress(False, 1, (Step(0, 4.0), Step(1, 3.0)), left_out=2)
    assert progress(trials, {2, 3}) == Progress(True, 3, (Step(0, 4.0), Step(1, 3.0), Step(2, 2.0), Step(3, 1.0)))


def test_what_was_not_reached_counts_with_all_trials_and_is_marked() -> None:
    one = search(1.0, 64, (0, 4.0), (5, 1.05), (9, 1.0))
    assert one.needed(0.95) == Needed(5, False) and one.needed(0.96) == Needed(9, False)
    assert search(0.5, 64, (0, 4.0), (5, 1.0)).needed(0.95) == Needed(64, True)
    assert str(Needed(64, True)) == "≥ 64" and str(Needed(2.5, False)) == "2.5" and str(Needed(1e3, False)) == "1,000"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(1, False), (3, False), (50, True)], Needed(3, False)),
        ([(1, False), (30, True), (50, False)], Needed(30, True)),
        ([(1, False), (2, True), (30, False), (50, False)], Needed(16, True)),
        ([(8, False)], Needed(8, False)),
        ([(2, False), (4, False)], Needed(3, False)),
    ],
)
def test_a_median_is_sure_where_what_ended_early_lies_above_it(values: list, expected: Needed) -> None:
    assert median_needed([Needed(*one) for one in values]) == expected


def test_a_kernel_that_needs_no_trial_counts_as_one_in_the_geometric_mean() -> None:
    assert mean_needed([Needed(0, False), Needed(4, False)]) == Needed(pytest.approx(2), False)
    assert mean_needed([Needed(4, True), Needed(4, False)]).at_least


def test_the_mean_curve_is_geometric_and_shorter_searches_keep_their_last_speed() -> None:
    curve = mean_curve([search(1.0, 5, (0, 4.0), (2, 1.0)), search(1.0, 2, (0, 1.0))])
    assert [(one.trials, one.kernels) for one in curve] == [(0, 2), (1, 2), (2, 2), (4, 1), (5, 1)]
    assert [one.speed for one in curve] == pytest.approx([0.5, 0.5, 1, 1, 1])
    assert marks(0) == [0] and marks(1) == [0, 1] and marks(8) == [0, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("cold", "warm", "bound"),
    [((8, 1), (2, 1), ""), ((8, 9), (2, 1), "≤"), ((8, 1), (2, 9), "≥"), ((8, 9), (2, 9), "≈")],
)
def test_a_ratio_tells_which_way_it_errs(cold: tuple, warm: tuple, bound: str) -> None:
    """Of each search: its trials, and the time that it ended with where 1 is the best known."""
    pairs = [
        (search(1.0, cold[0], (0, 9.0), (cold[0], cold[1])), search(1.0, warm[0], (0, 9.0), (warm[0], warm[1]))),
        (search(1.0, 4, (0, 1.0)), search(1.0, 4, (0, 1.0))),
    ]
    found = compared("all", pairs, 0.95)
    assert (found.kernels, found.bound) == (2, bound)
    assert found.ratio == pytest.approx((1 / 4) ** 0.5) and found.total_ratio == pytest.approx(1 / 4)


def test_without_a_trial_on_the_first_side_there_is_no_ratio_of_sums() -> None:
    one = search(1.0, 4, (0, 1.0))
    assert compared("all", [(one, one)], 0.95).total_ratio is None
