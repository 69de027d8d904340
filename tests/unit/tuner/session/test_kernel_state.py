"""What a session knows of its kernels: read from the database, counted by its own trials, refreshed from others'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from synthetic_store import CONV, LLVMPIPE, MATMUL, add_demo, baseline, failed, measure, ok, session

from wgtune.database.schema.records import TrialKind, WorkloadInfo
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.support.enums import Runtime, TrialState
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Kernel, Stage
from wgtune.tuner.session.events import Event, KernelSkipped
from wgtune.tuner.session.kernel_state import KernelLeases, KernelStates
from wgtune.tuner.session.request import TuneRequest

DEVICE = Device(LLVMPIPE.key, "vulkan", "v", "a", "llvmpipe", "1", "CPU", True, {}, (), Runtime.WGPU, 0)


def kernel_of(workload: WorkloadInfo) -> Kernel:
    func: Any = None  # nothing here lowers it
    return Kernel(workload.id, workload.name, workload.text, func, (), (), 1.0, 1)


def stage(name: str, *launches: WorkloadInfo) -> Stage:
    return Stage(name, [], [], [], [], [], [Call(one.id, ()) for one in launches])


KERNELS = {one.id: kernel_of(one) for one in (MATMUL, CONV)}
STAGES = {"unet": stage("unet", MATMUL, MATMUL, CONV), "vae": stage("vae", CONV)}
REQUEST = TuneRequest(Capture("key", "demo", CaptureOptions(), STAGES, KERNELS), DEVICE, TIERS["default"], steps=5)


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.memory() as opened:
        add_demo(opened)
        yield opened


def states_of(store: Store, request: TuneRequest = REQUEST) -> KernelStates:
    leases = KernelLeases(store, LLVMPIPE.key, Runtime.WGPU, KERNELS)
    leases.begin(store.begin_session(session()))
    return KernelStates(request, store, Recorder(), KERNELS, leases)


def test_launches_count_over_the_stages_asked_for(store: Store) -> None:
    assert {p.id: p.calls for p in states_of(store).by_time()} == {MATMUL.id: 10, CONV.id: 6}
    vae = states_of(store, replace(REQUEST, stages=["vae"]))
    assert {p.id: p.calls for p in vae.by_time()} == {MATMUL.id: 0, CONV.id: 1}


def test_earlier_trials_count_by_their_kind(store: Store) -> None:
    """Search trials are part of the budget; a baseline and a transfer compete with them, and a check does not."""
    earlier = store.begin_session(session())
    baseline(store, earlier, MATMUL, ok(4e-3))
    measure(store, earlier, MATMUL, ok(3e-3), "found")
    measure(store, earlier, MATMUL, failed(TrialState.WRONG_RESULT), "wrong")
    measure(store, earlier, MATMUL, ok(2e-3), "from a relative", TrialKind.TRANSFER)
    measure(store, earlier, MATMUL, ok(1e-3), "found", TrialKind.CHECK)
    states = states_of(store)
    progress = states.scheduler.kernels[MATMUL.id]
    assert (progress.trials, progress.stale, progress.best_s) == (2, 1, 2e-3)
    assert states.baselines == {MATMUL.id: 4e-3}
    assert states.scheduler.left == 2 * 32 - 2
    assert states.scheduler.kernels[CONV.id].best_s is None


def test_trials_of_this_session_are_counted_like_stored_ones(store: Store) -> None:
    states = states_of(store)
    progress = states.scheduler.kernels[MATMUL.id]
    states.record(progress, TrialKind.BASELINE, 4e-3)
    states.record(progress, TrialKind.TRANSFER, None)
    assert (progress.trials, progress.best_s, states.baselines) == (0, 4e-3, {MATMUL.id: 4e-3})
    states.record(progress, TrialKind.TRANSFER, 3e-3)
    states.record(progress, TrialKind.SEARCH, 2e-3)
    states.record(progress, TrialKind.SEARCH, None)
    assert (progress.trials, progress.stale, progress.best_s) == (2, 1, 2e-3)
    assert states.baselines == {MATMUL.id: 4e-3}


def test_only_kernels_that_others_measured_are_read_again(store: Store) -> None:
    states, other = states_of(store), store.begin_session(session())
    own = states.scheduler.kernels[CONV.id]
    states.record(own, TrialKind.SEARCH, 5e-3)  # not in the database: reading the kernel again would lose it
    baseline(store, other, MATMUL, ok(4e-3))
    measure(store, other, MATMUL, ok(3e-3), "found")
    assert states.refresh(KERNELS) == [MATMUL.id]
    assert states.scheduler.kernels[MATMUL.id].best_s == 3e-3 and states.baselines == {MATMUL.id: 4e-3}
    assert own.best_s == 5e-3
    assert states.refresh(KERNELS) == []


def test_a_skipped_kernel_gets_no_trials_and_the_listener_hears_why(store: Store) -> None:
    leases, recorder = KernelLeases(store, LLVMPIPE.key, Runtime.WGPU, KERNELS), Recorder()
    states = KernelStates(REQUEST, store, recorder, KERNELS, leases)
    states.skip(states.scheduler.kernels[MATMUL.id], "it needs 512 threads")
    assert states.skipped == {MATMUL.name: "it needs 512 threads"}
    assert recorder.events == [KernelSkipped(MATMUL.id, MATMUL.name, "it needs 512 threads")]
    assert [progress.id for progress, _ in states.scheduler.due()] == [CONV.id]
