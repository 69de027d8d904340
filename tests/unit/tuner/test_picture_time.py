"""What is minimised: a program's share of the time until the first picture."""

from __future__ import annotations

import pytest

from wgtune.tuner.picture_time import first_picture_s


def test_a_program_is_compiled_once_and_run_for_every_call() -> None:
    assert first_picture_s(20, 1e-3, 0.1) == pytest.approx(0.12)


def test_compiling_decides_between_programs_that_hardly_run() -> None:
    fast, short = (1.00e-3, 0.5), (1.02e-3, 0.1)
    assert first_picture_s(20, *fast) > first_picture_s(20, *short)
    assert first_picture_s(100_000, *fast) < first_picture_s(100_000, *short)
