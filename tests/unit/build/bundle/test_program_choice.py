"""Each kernel gets its best verified record of the device, and the baseline where there is none."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tvm
from synthetic_store import LLVMPIPE, failed, ok, session
from tvm import te, topi
from typer.testing import CliRunner

from wgtune.build.bundle.program_choice import (
    borrowed_kernels,
    choose_programs,
    count_improved,
    measured_seconds,
    untuned_share,
)
from wgtune.cli.app import app
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.layers import Layers
from wgtune.database.reader import Reader
from wgtune.database.readonly import opened
from wgtune.database.schema.records import DeviceInfo, TrialEnd, TrialKind, TrialStart, WorkloadInfo
from wgtune.database.store import Store
from wgtune.devices import quirks
from wgtune.devices.limits import TIERS, Tier
from wgtune.devices.program import Program
from wgtune.devices.quirks import QUIRKS, DriverMatch, Quirk, Quirks, combined, known_quirks
from wgtune.devices.wgsl_loops import may_exceed
from wgtune.support.enums import Match, TrialState
from wgtune.support.errors import BundleError
from wgtune.tuner.capture.kernel import make_kernel
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import schedulable_module, trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Kernel, Operand, Stage

TIER = TIERS["default"]


def kernel_of(n: int, factor: float = 2.0) -> Kernel:
    """y = factor · x over n × 64 elements."""
    x = te.placeholder((n, 64), name="x")
    y = te.compute((n, 64), lambda i, j: x[i, j] * tvm.tirx.const(factor, "float32"), name="y")
    return make_kernel("scale", te.create_prim_func([x, y]))


def capture_of(*kernels: Kernel) -> Capture:
    """A UNet that calls each kernel once."""
    calls = [Call(k.id, (Operand("input", 0, 0, 4), Operand("temp", 0, 0, 4))) for k in kernels]
    stage = Stage("unet", [], [], [], [], [4], calls)
    return Capture("key", "model", CaptureOptions(), {"unet": stage}, {k.id: k for k in kernels})


def threads(kernel: Kernel, count: int) -> tuple[str, Program]:
    """A schedule with ``count`` threads per workgroup: its trace and program."""
    schedule = tvm.s_tir.Schedule(schedulable_module(kernel))
    loops = schedule.get_loops(schedule.get_child_blocks(schedule.get_sblock("root"))[0])
    blocks, lanes = schedule.split(schedule.fuse(*loops), [None, count])
    schedule.bind(blocks, "blockIdx.x")
    schedule.bind(lanes, "threadIdx.x")
    return trace_to_json(schedule), emit_wgsl(schedule.mod, TIERS["desktop"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "records.db")) as opened:
        yield opened


def record(
    store: Store, kernel: Kernel, trace: str, program: Program, end: TrialEnd, kind: TrialKind = TrialKind.SEARCH
) -> None:
    store.add_workloads(
        [WorkloadInfo(kernel.id, kernel.name, kernel.text, (), (), kernel.outputs, kernel.flops, kernel.nbytes)]
    )
    session_id = store.begin_session(session())
    needs = program.to_json()["needs"]
    start = TrialStart(session_id, kernel.id, kind, trace, program.digest, needs, len(program.dispatches), 0)
    store.end_trial(store.begin_trial(start), end)


def choose(store: Reader | None, *kernels: Kernel, tier: Tier = TIER) -> tuple[dict, list[str]]:
    told: list[str] = []
    return choose_programs(capture_of(*kernels), tier, store, LLVMPIPE, lambda done, total: None, told.append), told


def test_the_fastest_verified_record_wins(store: Store) -> None:
    kernel = kernel_of(8)
    slow, fast, wrong = (threads(kernel, n) for n in (32, 64, 128))
    record(store, kernel, *slow, ok(3e-3))
    record(store, kernel, *fast, ok(1e-3, 2e-3, 9e-3))
    record(store, kernel, *wrong, failed(TrialState.WRONG_RESULT))
    choices, told = choose(store, kernel)
    assert choices[kernel.id].program == fast[1]
    assert choices[kernel.id].record is not None and choices[kernel.id].record.latency_s == 2e-3
    assert not told and count_improved(choices) == 1


def timed(seconds: float, compile_s: float) -> TrialEnd:
    return replace(ok(*[seconds] * 8), compile_s=compile_s)


def test_of_records_within_noise_the_one_ships_that_costs_a_visitor_least(store: Store) -> None:
    kernel = kernel_of(8)
    quick, short, slow = (threads(kernel, n) for n in (32, 64, 128))
    record(store, kernel, *quick, timed(1.00e-3, 0.5))
    record(store, kernel, *short, timed(1.02e-3, 0.1))
    record(store, kernel, *slow, timed(1.50e-3, 0.01))
    choices, _ = choose(store, kernel)
    assert choices[kernel.id].program == short[1]
    assert choices[kernel.id].record.latency_s == 1.02e-3, "the record that ships is named"
    assert measured_seconds(capture_of(kernel), choices, 20) == pytest.approx(20 * 1.02e-3)
    assert store.best(LLVMPIPE.key, [kernel.id])[kernel.id].latency_s == 1.00e-3
    # Over so many steps 2 % of a run outweigh compiling.
    many = choose_programs(capture_of(kernel), TIER, store, LLVMPIPE, lambda done, total: None, print, steps=50_000)
    assert many[kernel.id].program == quick[1]


def test_of_records_within_noise_one_that_is_still_verified_ships(store: Store) -> None:
    kernel = kernel_of(8)
    simple, verified = threads(kernel, 32), threads(kernel, 64)
    record(store, kernel, simple[0], replace(simple[1], scratch=(4,)), timed(1.00e-3, 0.1))
    record(store, kernel, *verified, timed(1.02e-3, 0.5))
    choices, told = choose(store, kernel)
    assert choices[kernel.id].program == verified[1] and choices[kernel.id].record is not None and not told


def test_fewer_dispatches_come_before_less_compiling(store: Store) -> None:
    kernel = kernel_of(8)
    split, whole = threads(kernel, 32), threads(kernel, 64)
    record(store, kernel, *whole, timed(1.02e-3, 0.5))
    session_id = store.begin_session(session())
    start = TrialStart(
        session_id, kernel.id, TrialKind.SEARCH, split[0], split[1].digest, split[1].to_json()["needs"], 2, 0
    )
    store.end_trial(store.begin_trial(start), timed(1.00e-3, 0.1))
    choices, _ = choose(store, kernel)
    assert choices[kernel.id].program == whole[1]


def test_a_record_that_no_longer_fits_is_told_with_the_command_that_shows_it(store: Store, tmp_path: Path) -> None:
    kernel = kernel_of(8)
    record(store, kernel, '[["nonsense"], []]', threads(kernel, 64)[1], ok(1e-3))
    path, _ = write_release(store, "lab", tmp_path)
    with opened(str(path)) as release, Layers(Store.memory(), [release]) as layers:
        choices, told = choose(layers, kernel)
    assert choices[kernel.id].record is None
    assert len(told) == 1 and f"trial 1 of session 1 of the release {path.name} no longer becomes" in told[0]
    command = re.search(r"`wgtune (.*)`", told[0])
    assert command is not None
    shown = CliRunner().invoke(app, [*shlex.split(command[1]), "--json"])
    assert shown.exit_code == 0 and json.loads(shown.stdout)["workload"] == kernel.id


def test_without_a_record_the_baseline_stands_in(store: Store) -> None:
    kernel = kernel_of(8)
    known = combined(known_quirks(LLVMPIPE.backend, LLVMPIPE.model))
    expected = emit_wgsl(next(baseline_schedules(kernel, TIER, known)).mod, TIER)
    for source in (store, None):
        choices, _ = choose(source, kernel)
        assert choices[kernel.id].program == expected and choices[kernel.id].record is None
        assert count_improved(choices) == 0


def long_product() -> Kernel:
    """A product whose threads loop over hundreds of terms or more, but for 32 in the schedule of short loops."""
    a, b = te.placeholder((16, 8192)), te.placeholder((8192, 16))
    return make_kernel("product", te.create_prim_func([a, b, topi.nn.matmul(a, b)]))


def made_up(limit: int) -> tuple[Quirk, ...]:
    """The table with one more: until its version 5, the driver of "Maker GPU" ends loops after ``limit`` iterations."""
    drivers = DriverMatch("maker gpu", version=r"Maker (\d+)", before=(5,))
    return (*QUIRKS, Quirk(drivers, "what", "reason", "seen", "remedy", Quirks(max_thread_iterations=limit)))


MAKER = replace(LLVMPIPE, key="vulkan:maker-gpu", vendor="maker", model="Maker GPU 1", software=False)


def build_for(store: Reader | None, kernel: Kernel, device: DeviceInfo | None) -> Program:
    choices = choose_programs(capture_of(kernel), TIER, store, device, lambda a, b: None, pytest.fail)
    return choices[kernel.id].program


def test_a_drivers_limit_of_iterations_decides_what_is_built_for_it_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, limit = long_product(), 100
    default = emit_wgsl(next(baseline_schedules(kernel, TIER)).mod, TIER)
    others = (None, LLVMPIPE, replace(MAKER, model="GPU 1"))
    before = [build_for(store, kernel, device) for device in (*others, MAKER)]
    monkeypatch.setattr(quirks, "QUIRKS", made_up(limit))
    assert [build_for(store, kernel, device) for device in others] == before[:-1]
    built = build_for(store, kernel, MAKER)
    assert before[-1] == default and may_exceed(default, limit) and not may_exceed(built, limit)
    # The driver of its last session, where there is one, tells whether it still has the quirk.
    for driver, chosen in (("Maker 4", built), ("Maker 5", default)):
        store.begin_session(replace(session(MAKER), driver=driver))
        assert build_for(store, kernel, MAKER) == chosen


def test_a_schedule_that_a_drivers_limit_may_break_is_not_borrowed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = long_product()
    *_, schedule = baseline_schedules(kernel, TIER)
    program = emit_wgsl(schedule.mod, TIER)
    lend(store, kernel, trace_to_json(schedule), program, 1e-3, replace(MAKER, key="vulkan:other", model="Other 1"))
    assert may_exceed(program, 100) and build_for(store, kernel, MAKER) == program
    monkeypatch.setattr(quirks, "QUIRKS", made_up(100))
    assert build_for(store, kernel, MAKER) != program


def test_a_record_counts_only_for_its_device(store: Store) -> None:
    kernel = kernel_of(8)
    record(store, kernel, *threads(kernel, 64), ok(1e-3))
    choices = choose_programs(
        capture_of(kernel), TIER, store, replace(LLVMPIPE, key="vulkan:other"), lambda a, b: None, pytest.fail
    )
    assert choices[kernel.id].record is None


def test_a_record_that_needs_more_than_the_tier_is_passed_over(store: Store) -> None:
    kernel = kernel_of(8)
    small, large = threads(kernel, 64), threads(kernel, 128)
    record(store, kernel, *small, ok(2e-3))
    record(store, kernel, *large, ok(1e-3))
    narrow = replace(TIER, name="narrow", limits={**TIER.limits, "maxComputeInvocationsPerWorkgroup": 64})
    choices, _ = choose(store, kernel, tier=narrow)
    assert choices[kernel.id].program == small[1]


def test_schedules_of_other_programs_are_used_and_told_once_as_not_verified(store: Store) -> None:
    """A newer code generator makes another program of a schedule than was measured."""
    first, second, current = kernel_of(8), kernel_of(16), kernel_of(24)
    for kernel in (first, second):
        trace, program = threads(kernel, 64)
        record(store, kernel, trace, replace(program, scratch=(4,)), ok(1e-3))
    record(store, current, *threads(current, 64), ok(2e-3))
    choices, told = choose(store, first, second, current)
    for kernel in (first, second):
        choice = choices[kernel.id]
        assert choice.program == threads(kernel, 64)[1] and choice.record is None
        assert choice.borrowed is not None and choice.borrowed.match is Match.EXACT
    assert choices[current.id].record is not None and count_improved(choices) == 1
    [itself] = borrowed_kernels(capture_of(first, second, current), choices, 20)
    assert (itself.match, itself.device, itself.kernels) == ("exact", LLVMPIPE.key, 2)
    assert (
        itself.time_share == pytest.approx(1 / 2)
        and untuned_share(capture_of(first, second, current), choices, 20) == 0
    )
    assert len(told) == 1 and told[0].startswith(f"2 kernels run schedules that {LLVMPIPE.key} verified as another")
    assert f"--device {LLVMPIPE.key}" in told[0]


def test_a_schedule_whose_program_of_today_fails_here_is_left_for_a_relatives(store: Store) -> None:
    kernel = kernel_of(8)
    trace, program = threads(kernel, 64)
    record(store, kernel, trace, replace(program, scratch=(4,)), ok(1e-3))
    record(store, kernel, "", program, failed(TrialState.WRONG_RESULT))
    choices, told = choose(store, kernel)
    assert choices[kernel.id].borrowed is None and choices[kernel.id].program.digest != program.digest
    lend(store, kernel, *threads(kernel, 128), 1e-3)
    choices, told = choose(store, kernel)
    found = choices[kernel.id].borrowed
    assert found is not None and found.match is Match.MODEL and not told


def test_a_damaged_trace_is_told_and_not_used(store: Store) -> None:
    kernel = kernel_of(8)
    record(store, kernel, '[["nonsense"], []]', threads(kernel, 64)[1], ok(1e-3))
    choices, told = choose(store, kernel)
    assert choices[kernel.id].record is None
    assert len(told) == 1 and kernel.name in told[0]


def test_a_baseline_that_failed_on_the_device_is_not_shipped(store: Store) -> None:
    kernel = kernel_of(8)
    known = combined(known_quirks(LLVMPIPE.backend, LLVMPIPE.model))
    programs = [emit_wgsl(s.mod, TIER) for s in baseline_schedules(kernel, TIER, known)]
    record(store, kernel, "", programs[0], failed(TrialState.WRONG_RESULT), TrialKind.BASELINE)
    different = [p for p in programs if p.digest != programs[0].digest]
    if different:
        choices, _ = choose(store, kernel)
        assert choices[kernel.id].program == different[0]
    for program in different:
        record(store, kernel, "", program, failed(TrialState.RUN_TIMEOUT), TrialKind.BASELINE)
    with pytest.raises(BundleError, match=f"{kernel.name}.*every untuned schedule failed"):
        choose(store, kernel)


def test_a_kernel_that_does_not_fit_names_the_limit_and_the_tier_that_would_do() -> None:
    kernel = kernel_of(8)
    tiny = replace(TIER, name="tiny", limits={**TIER.limits, "maxStorageBufferBindingSize": 1024})
    with pytest.raises(
        BundleError, match=f"{kernel.name}.*tiny.*maxStorageBufferBindingSize 2048 exceeds 1024"
    ) as error:
        choose(None, kernel, tier=tiny)
    assert error.value.hint == "--tier default would do"


def test_the_untuned_share_follows_the_work(store: Store) -> None:
    measured, double, triple = kernel_of(8), kernel_of(16), kernel_of(24)
    record(store, measured, *threads(measured, 64), ok(1e-3))
    choices, _ = choose(store, measured, double)
    capture = capture_of(measured, double)
    assert untuned_share(capture, choices, 20) == pytest.approx(2 / 3)
    assert measured_seconds(capture, choices, 20) == pytest.approx(20e-3)
    record(store, double, *threads(double, 64), ok(2e-3))
    choices, _ = choose(store, measured, double)
    assert untuned_share(capture, choices, 20) == 0
    choices, _ = choose(store, triple)
    assert untuned_share(capture_of(triple), choices, 20) is None


TWIN = replace(LLVMPIPE, key="gl:llvmpipe", backend="gl")


def lend(store: Store, kernel: Kernel, trace: str, program: Program, seconds: float, device=TWIN) -> None:
    """A record of another device, which is known beside the one that is built for."""
    store.begin_session(session())
    store.add_workloads(
        [WorkloadInfo(kernel.id, kernel.name, kernel.text, (), (), kernel.outputs, kernel.flops, kernel.nbytes)]
    )
    number = store.begin_session(session(device))
    needs = program.to_json()["needs"]
    start = TrialStart(number, kernel.id, TrialKind.SEARCH, trace, program.digest, needs, len(program.dispatches), 0)
    store.end_trial(store.begin_trial(start), ok(seconds))


def test_a_kernel_without_a_record_borrows_and_does_not_count_as_verified(store: Store) -> None:
    own, other = kernel_of(8), kernel_of(16)
    record(store, own, *threads(own, 64), ok(1e-3))
    lend(store, own, *threads(own, 128), 1e-9)
    lend(store, other, *threads(other, 128), 1e-9)
    choices, told = choose(store, own, other)
    assert choices[own.id].program == threads(own, 64)[1] and choices[own.id].borrowed is None
    borrowed = choices[other.id]
    assert borrowed.program == threads(other, 128)[1] and borrowed.record is None
    assert borrowed.borrowed is not None and borrowed.borrowed.match is Match.MODEL
    assert count_improved(choices) == 1 and measured_seconds(capture_of(own, other), choices, 20) == pytest.approx(
        20e-3
    )
    [lender] = borrowed_kernels(capture_of(own, other), choices, 20)
    assert (lender.match, lender.device, lender.kernels) == ("model", TWIN.key, 1)
    assert lender.time_share == pytest.approx(2 / 3) and untuned_share(capture_of(own, other), choices, 20) == 0
    assert not told


def test_borrowing_goes_as_far_as_asked(store: Store) -> None:
    kernel = kernel_of(8)
    lend(store, kernel, *threads(kernel, 128), 1e-3, replace(TWIN, key="gl:x", vendor="v", architecture="", model="x"))
    for borrow in Match:
        choices = choose_programs(capture_of(kernel), TIER, store, LLVMPIPE, lambda a, b: None, pytest.fail, borrow)
        assert (choices[kernel.id].borrowed is not None) is (borrow is Match.PORTABLE)


def test_a_borrowed_program_that_failed_here_is_not_used(store: Store) -> None:
    kernel = kernel_of(8)
    trace, program = threads(kernel, 128)
    lend(store, kernel, trace, program, 1e-3)
    record(store, kernel, trace, program, failed(TrialState.WRONG_RESULT))
    choices, _ = choose(store, kernel)
    assert choices[kernel.id].borrowed is None and choices[kernel.id].program.digest != program.digest


def test_a_borrowed_schedule_that_does_not_emit_is_told(store: Store) -> None:
    kernel = kernel_of(8)
    lend(store, kernel, '[["nonsense"], []]', threads(kernel, 128)[1], 1e-3)
    choices, told = choose(store, kernel)
    assert choices[kernel.id].borrowed is None and len(told) == 1 and TWIN.key in told[0]
