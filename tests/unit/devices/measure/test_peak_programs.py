"""The time of a launch: the slope between passes, whatever a pass costs by itself and however the host disturbs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wgtune.devices.measure.peak_programs import LAUNCHES, find_launch_s, find_peaks


def passes(launch_s: float, pass_s: float = 1e-3, delays_s: Callable[[int], float] = lambda number: 0.0):
    sizes: list[int] = []

    def launches_s(repeats: int) -> float:
        sizes.append(repeats)
        return pass_s + repeats * len(LAUNCHES) * launch_s + delays_s(len(sizes))

    return launches_s, sizes


@pytest.mark.parametrize("launch_s", [1e-7, 2e-6, 3e-5, 1e-3])
def test_what_a_pass_costs_by_itself_does_not_count(launch_s: float) -> None:
    launches_s, _ = passes(launch_s, pass_s=4e-3)
    assert find_launch_s(launches_s) == pytest.approx(launch_s)


def test_passes_are_long_enough_for_the_clock_but_bounded() -> None:
    for launch_s, longest in ((1e-9, 2048), (2e-5, 256), (1.0, 32)):
        launches_s, sizes = passes(launch_s, pass_s=0.0)
        find_launch_s(launches_s)
        assert max(sizes) == longest


def test_a_few_disturbed_passes_do_not_count() -> None:
    launches_s, _ = passes(2e-5, delays_s=lambda number: 1.0 if number % 7 == 0 else 0.0)
    assert find_launch_s(launches_s) == pytest.approx(2e-5)


def test_a_clock_that_sees_no_launch_gives_zero() -> None:
    assert find_launch_s(lambda repeats: 1e-3 / repeats) == 0.0


def test_peaks_hold_the_best_of_all_sizes_and_the_launch() -> None:
    launches_s, _ = passes(5e-6)
    peaks = find_peaks(lambda groups: groups * 1e-6, lambda nbytes: 1e-4 + nbytes * 1e-10, launches_s)
    assert peaks.flops_per_s == pytest.approx(256 * 64 * 8 * 4 * 4 * 2 / 1e-6)
    assert peaks.bytes_per_s == pytest.approx(2 * (64 << 20) / (1e-4 + (64 << 20) * 1e-10))
    assert peaks.launch_s == pytest.approx(5e-6)
