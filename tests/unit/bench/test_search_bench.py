"""The search benchmark counts as `wgtune report search` does."""

from __future__ import annotations

import io
import sys

import pytest
from folders import REPOSITORY
from rich.console import Console

from wgtune.reports.search_progress import KernelSearch, Progress, Step
from wgtune.tuner.kernel_names import KernelClass

sys.path.insert(0, str(REPOSITORY))

from tests.bench.search import Pair, _print_ratio


def side(warm: bool, trials: int, *steps: tuple[int, float]) -> KernelSearch:
    made = Progress(warm, trials, tuple(Step(*step) for step in steps))
    return KernelSearch("conv2d_add", "id", KernelClass.CONVOLUTION, made, 1.0)


def test_the_warm_searchs_best_is_told_by_the_cold_ones() -> None:
    cold = side(False, 16, (0, 4.0), (8, 1.0))
    assert Pair("a", cold, side(True, 8, (0, 4.0), (2, 0.8))).best == pytest.approx(1 / 0.8)
    assert Pair("a", cold, side(True, 8, (0, 4.0))).best == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("warm", "words"),
    [
        (side(True, 8, (0, 4.0), (2, 1.0)), "all: warm takes 0.25 × the"),
        (side(True, 8, (0, 4.0)), "warm takes ≥ 1.00 ×"),
    ],
)
def test_a_search_that_does_not_get_there_counts_with_all_its_trials(warm: KernelSearch, words: str) -> None:
    out = io.StringIO()
    _print_ratio(Console(file=out, width=200), "all", [Pair("a", side(False, 16, (0, 4.0), (8, 1.0)), warm)])
    assert words in out.getvalue()
