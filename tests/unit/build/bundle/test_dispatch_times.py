"""How long dispatches are taken to last, and which run in slices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from printed_program import program

from wgtune.build.bundle.dispatch_times import LONGEST_S, SLOW_BYTES, SLOW_FLOPS, estimate_s, limit_dispatches
from wgtune.build.bundle.program_choice import ProgramChoice


def kernel(seconds: float) -> Any:
    return SimpleNamespace(flops=seconds * SLOW_FLOPS, nbytes=0.5 * seconds * SLOW_BYTES)


def choice(grid: tuple[int, int, int] = (16, 1, 1), latency_s: float | None = None) -> ProgramChoice:
    record: Any = None if latency_s is None else SimpleNamespace(latency_s=latency_s)
    return ProgramChoice(program(grid), record)


def device(software: bool) -> Any:
    return SimpleNamespace(software=software)


def test_a_record_counts_where_its_device_is_slower_and_can_be_reset() -> None:
    assert estimate_s(kernel(0.5), choice(), None) == pytest.approx(0.5)
    assert estimate_s(kernel(0.5), choice(latency_s=3.0), device(False)) == 3.0
    assert estimate_s(kernel(0.5), choice(latency_s=0.001), device(False)) == pytest.approx(0.5)
    assert estimate_s(kernel(0.5), choice(latency_s=3.0), device(True)) == pytest.approx(0.5)
    by_bytes: Any = SimpleNamespace(flops=0.0, nbytes=2 * SLOW_BYTES)
    assert estimate_s(by_bytes, choice(), None) == 2.0


def test_only_long_dispatches_run_in_slices() -> None:
    kernels = {"short": kernel(0.9), "long": kernel(3.5)}
    choices = {"short": choice(), "long": choice()}
    limited, told = limit_dispatches(kernels, choices, None)
    assert limited["short"] is choices["short"]
    assert [d.grid[0] for d in limited["long"].program.dispatches] == [4, 4, 4, 4]
    assert told.sliced == 1
    assert told.longest_s == pytest.approx(0.9) and told.longest_s < LONGEST_S


def test_a_grid_of_few_workgroups_stays_long_which_is_told() -> None:
    limited, told = limit_dispatches({"k": kernel(9.0)}, {"k": choice((2, 1, 1))}, None)
    assert len(limited["k"].program.dispatches) == 2
    assert told.longest_s == pytest.approx(4.5)
