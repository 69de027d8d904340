"""Which programs a build makes, and what it says of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wgtune.build.bundle.builder import BuildRequest, _warn_of_untuned
from wgtune.cli.build import Arithmetic
from wgtune.support.enums import ComputePrecision
from wgtune.tuner.ir import CaptureOptions

F32, F16 = ComputePrecision


@pytest.mark.parametrize(
    ("options", "asked", "precisions"),
    [(F32, (), (F32,)), (F16, (), (F16,)), (F16, (F32,), (F32,)), (F32, (F16, F32), (F32, F16))],
)
def test_programs_are_made_of_what_is_asked_for_else_of_the_options(
    options: ComputePrecision, asked: tuple[ComputePrecision, ...], precisions: tuple[ComputePrecision, ...]
) -> None:
    request = BuildRequest("model", Path("dist"), options=CaptureOptions(compute=options), compute=asked)
    assert request.precisions == precisions


def test_the_commands_choices() -> None:
    assert [one.precisions for one in Arithmetic] == [(F32,), (F16,), (F32, F16)]


def program(compute: ComputePrecision, kernels: int, from_baseline: int, *features: str) -> Any:
    tuned, requires = SimpleNamespace(kernels=kernels, from_baseline=from_baseline), SimpleNamespace(features=features)
    return SimpleNamespace(info=SimpleNamespace(compute=compute, tuned=tuned, requires=requires))


def test_half_floats_that_are_less_tuned_are_warned_of() -> None:
    told: list[str] = []
    full = program(F32, 72, 2)
    _warn_of_untuned([full, program(F16, 73, 3, "shader-f16")], "sd-v1-5", told.append)
    _warn_of_untuned([full], "sd-v1-5", told.append)
    assert told == []
    _warn_of_untuned([full, program(F16, 73, 70, "shader-f16")], "sd-v1-5", told.append)
    (warning,) = told
    assert "GPU has shader-f16 run the program for f16, in which 3 of 73 kernels are tuned, and 70 of 72" in warning
    assert "`wgtune tune --model sd-v1-5 --compute f16`" in warning
