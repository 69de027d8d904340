"""Programs on disk: the same as lowered ones, lowered anew where anything differs or a file is damaged."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tuning_kernels import matmul, softmax

from wgtune.devices.limits import TIERS
from wgtune.devices.program import Program
from wgtune.devices.quirks import Quirks
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import trace_to_json
from wgtune.tuner.codegen.wgsl import EmitError, emit_wgsl
from wgtune.tuner.programs import cache
from wgtune.tuner.programs.cache import replayed_program, untuned_programs

TIER = TIERS["default"]


@pytest.fixture(autouse=True)
def lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An empty cache; what is lowered is listed."""
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path))
    calls: list[Any] = []

    def emitting(module: Any, tier: Any) -> Program:
        calls.append(module)
        return emit_wgsl(module, tier)

    monkeypatch.setattr(cache, "emit_wgsl", emitting)
    return calls


def test_untuned_programs_are_lowered_once(lowered: list[Any]) -> None:
    expected = [emit_wgsl(schedule.mod, TIER) for schedule in islice(baseline_schedules(matmul(), TIER), 2)]
    assert [next(untuned_programs(matmul(), TIER))] == expected[:1] and len(lowered) == 1
    # What was not asked for before is lowered now.
    assert list(islice(untuned_programs(matmul(), TIER), 2)) == expected and len(lowered) == 2
    assert list(islice(untuned_programs(matmul(), TIER), 2)) == expected and len(lowered) == 2


def test_all_of_them_end_where_the_schedules_do(lowered: list[Any]) -> None:
    first, count = list(untuned_programs(softmax(), TIER)), len(lowered)
    again = list(untuned_programs(softmax(), TIER))
    assert len(first) == count == len(list(baseline_schedules(softmax(), TIER))) and len(lowered) == count
    assert [getattr(one, "digest", one) for one in again] == [getattr(one, "digest", one) for one in first]


def test_another_kernel_tier_or_quirk_is_lowered_by_itself(lowered: list[Any]) -> None:
    smaller = replace(TIER, limits={**TIER.limits, "maxComputeInvocationsPerWorkgroup": 64})
    for kernel, tier, quirks in (
        (matmul(), TIER, Quirks()),
        (softmax(), TIER, Quirks()),
        (matmul(), smaller, Quirks()),
        (matmul(), TIER, Quirks(lanes=64, wave=8, avoids_workgroup_memory=True)),
    ):
        before = len(lowered)
        next(untuned_programs(kernel, tier, quirks))
        assert len(lowered) > before


def test_why_a_schedule_is_no_program_is_kept_too(lowered: list[Any]) -> None:
    none = replace(TIER, limits={**TIER.limits, "maxStorageBuffersPerShaderStage": 1})
    first, again = (next(untuned_programs(matmul(), none)) for _ in range(2))
    assert isinstance(first, EmitError) and isinstance(again, EmitError) and len(lowered) == 1
    assert again.message == first.message and again.hint == first.hint


def test_a_stored_schedule_is_lowered_once_and_again_where_its_file_is_damaged(
    lowered: list[Any], tmp_path: Path
) -> None:
    kernel = matmul()
    schedule = next(iter(baseline_schedules(kernel, TIER)))
    trace, expected = trace_to_json(schedule), emit_wgsl(schedule.mod, TIER)
    assert [replayed_program(kernel, trace, TIER) for _ in range(2)] == [expected] * 2 and len(lowered) == 1
    (file,) = (tmp_path / "programs").iterdir()
    for damage in (b"", file.read_bytes()[:-9], b"no gzip"):
        file.write_bytes(damage)
        assert replayed_program(kernel, trace, TIER) == expected
    assert len(lowered) == 4


def test_without_room_nothing_is_kept_and_nothing_fails(lowered: list[Any], tmp_path: Path) -> None:
    (tmp_path / "programs").write_text("a file where the folder should be")
    assert next(untuned_programs(matmul(), TIER)) == next(untuned_programs(matmul(), TIER)) and len(lowered) == 2
