"""Programs to be judged without running them: untuned baselines, and a device's best records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from replayed_schedules import DIGEST, KERNEL, NO_SUCH_BLOCK, OTHER, SCHEDULE, TRACE, add, workload
from synthetic_store import LLVMPIPE, ok
from tuning_kernels import capture_of

from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.devices.offline.compiler import shader_digest
from wgtune.support.hashing import digest_of
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.compiled.kernel_program import KernelProgram
from wgtune.tuner.remeasure.judged_programs import baseline_programs, record_programs

TIER = TIERS["default"]
PROGRAM = emit_wgsl(SCHEDULE.mod, TIER)
LAUNCHES = {KERNEL.id: {"unet": 40}, OTHER.id: {"unet": 20, "vae": 1}}


def ignore(what: str, done: float) -> None:
    pass


def test_a_baseline_is_the_first_untuned_program() -> None:
    first, second = baseline_programs(capture_of(KERNEL, OTHER, calls=2), TIER, 20, ignore)
    assert (first.name, first.workload_id, first.launches) == (KERNEL.name, KERNEL.id, {"unet": 40})
    assert first.flops == KERNEL.flops and first.program_digest == DIGEST and not first.problem
    assert first.shaders == {shader_digest(shader): shader for shader in PROGRAM.shaders}
    assert second.name == OTHER.name and second.shaders and not second.multiplies and first.multiplies


def test_a_kernel_that_fits_no_tier_has_no_program_and_says_why() -> None:
    tier = replace(TIER, limits={**TIER.limits, "maxStorageBufferBindingSize": 4})
    (found,) = baseline_programs(capture_of(KERNEL), tier, 20, ignore)
    assert not found.shaders and "maxStorageBufferBindingSize" in found.problem and found.work() > 0


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.memory() as opened:
        opened.add_workloads([workload(KERNEL), workload(OTHER)])
        yield opened


def records(store: Store, known: dict[str, tuple[str, ...]] | None = None) -> list[KernelProgram]:
    asked: list[str] = []

    def look_up(digests) -> dict[str, tuple[str, ...]]:
        asked.extend(digests)
        return known or {}

    found = record_programs(store, LLVMPIPE.key, LAUNCHES, look_up, ignore)
    assert len(asked) == len(store.best(LLVMPIPE.key, list(LAUNCHES)))
    return found


def test_a_records_program_is_made_again(store: Store) -> None:
    add(store, TRACE, ok(0.01))
    found, missing = records(store)
    assert found.program_digest == DIGEST and not found.changed and not found.problem
    assert list(found.shaders.values()) == list(dict.fromkeys(PROGRAM.shaders)) and found.launches == {"unet": 40}
    assert (missing.name, missing.problem, dict(missing.shaders)) == (OTHER.name, "it has no record", {})


def test_a_program_whose_facts_are_known_is_not_made_again(store: Store) -> None:
    add(store, NO_SUCH_BLOCK, ok(0.01))
    found, _ = records(store, {DIGEST: ("a", "b", "a")})
    assert dict(found.shaders) == {"a": None, "b": None} and found.program_digest == DIGEST and not found.problem


def test_a_schedule_that_makes_another_program_now_is_told(store: Store) -> None:
    add(store, TRACE, ok(0.01), digest=digest_of("what was measured"))
    found, _ = records(store)
    assert found.changed and found.program_digest == DIGEST and found.shaders


def test_a_schedule_that_no_longer_applies_is_a_problem(store: Store) -> None:
    add(store, NO_SUCH_BLOCK, ok(0.01))
    found, _ = records(store)
    assert found.problem and not found.shaders and not found.changed
