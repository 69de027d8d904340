"""Trials go where the time is, count what is known, and end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgtune.tuner.search.task_scheduler import ROUND, KernelProgress, TaskScheduler


def spend(scheduler: TaskScheduler, gain: dict[str, float] | None = None, limit: int = 10_000) -> list[str]:
    """Plays the budget out; a trial of kernel k multiplies its latency by ``gain[k]``. Returns the order of kernels."""
    order = []
    while (due := scheduler.due()) and len(order) < limit:
        progress, count = due[0]
        assert 1 <= count <= ROUND
        for _ in range(count):
            order.append(progress.id)
            progress.record((progress.best_s or 1.0) * (gain or {}).get(progress.id, 2.0))
    return order


def test_first_rounds_go_to_every_kernel_heaviest_first():
    scheduler = TaskScheduler(
        [KernelProgress("light", 1, best_s=0.1), KernelProgress("heavy", 10, best_s=1.0)], trials=8
    )
    order = spend(scheduler)
    assert order[: 2 * ROUND] == ["heavy"] * ROUND + ["light"] * ROUND
    assert len(order) == 16


def test_trials_follow_the_share_of_time():
    scheduler = TaskScheduler(
        [KernelProgress("light", 1, best_s=1.0), KernelProgress("heavy", 9, best_s=1.0)], trials=100
    )
    order = spend(scheduler)
    assert len(order) == 200
    assert 150 <= order.count("heavy") <= 190


def test_calls_count_as_much_as_latency():
    scheduler = TaskScheduler(
        [KernelProgress("often", 100, best_s=0.001), KernelProgress("long", 1, best_s=0.1)], trials=50
    )
    order = spend(scheduler)
    assert abs(order.count("often") - order.count("long")) <= 2 * ROUND


def test_a_kernel_that_still_improves_is_preferred_to_one_that_does_not():
    scheduler = TaskScheduler(
        [KernelProgress("stuck", 1, best_s=1.0), KernelProgress("better", 1, best_s=1.0)], trials=64
    )
    order = spend(scheduler, {"better": 0.999})
    assert order.count("better") > 1.5 * order.count("stuck")


def test_earlier_trials_count():
    known = [KernelProgress("a", 1, best_s=1.0, trials=10), KernelProgress("b", 1, best_s=1.0, trials=6)]
    assert TaskScheduler(known, trials=8).due() == []
    assert TaskScheduler(known, trials=8).left == 0
    assert len(spend(TaskScheduler(known, trials=9))) == 2


def test_no_trials_means_baselines_only():
    assert TaskScheduler([KernelProgress("a", 1, best_s=1.0)], trials=0).due() == []


def test_exhausted_kernels_leave_their_trials_to_others():
    done = KernelProgress("done", 100, best_s=1.0, trials=3, exhausted=True)
    other = KernelProgress("other", 1, best_s=1.0)
    assert spend(TaskScheduler([done, other], trials=8)) == ["other"] * 13
    other.exhausted = True
    scheduler = TaskScheduler([done, other], trials=None)
    assert scheduler.due() == [] and scheduler.left == 0


def test_without_a_limit_it_never_ends():
    assert len(spend(TaskScheduler([KernelProgress("a", 1, best_s=1.0)], trials=None), limit=500)) >= 500


def test_an_unmeasured_kernel_is_weighed_by_its_estimate():
    scheduler = TaskScheduler(
        [KernelProgress("small", 1, estimate_s=0.1), KernelProgress("large", 1, estimate_s=0.2)], trials=4
    )
    assert scheduler.due()[0][0].id == "large"


def test_recording_keeps_the_best_and_counts_what_is_stale():
    progress = KernelProgress("a", 2, best_s=1.0)
    assert not progress.record(None)
    assert not progress.record(1.5)
    assert progress.stale == 2
    assert progress.record(0.5)
    assert (progress.best_s, progress.stale, progress.trials, progress.time_s) == (0.5, 0, 3, 1.0)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(1e-6, 1.0), st.integers(0, 20)), min_size=1, max_size=12),
    st.integers(0, 12),
)
def test_the_whole_budget_is_spent_and_no_more(kernels, trials):
    progress = [KernelProgress(str(i), calls, best_s=s, trials=t) for i, (calls, s, t) in enumerate(kernels)]
    known = sum(p.trials for p in progress)
    spent = len(spend(TaskScheduler(progress, trials)))
    assert spent == max(0, trials * len(progress) - known)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=10), st.integers(ROUND, 10))
def test_every_kernel_gets_a_first_round(times, trials):
    order = spend(TaskScheduler([KernelProgress(str(i), 1, best_s=s) for i, s in enumerate(times)], trials))
    assert all(order.count(str(i)) >= ROUND for i in range(len(times)))


def test_who_shares_the_kernels_learns_all_that_are_due():
    light, heavy = KernelProgress("light", 1, best_s=0.1), KernelProgress("heavy", 1, best_s=1.0, trials=ROUND)
    scheduler = TaskScheduler([light, heavy, KernelProgress("done", 1, best_s=9.0, exhausted=True)], trials=8)
    assert [(progress.id, count) for progress, count in scheduler.due()] == [("light", ROUND), ("heavy", ROUND)]
