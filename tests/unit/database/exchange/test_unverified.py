"""What other programs measured, and what of theirs cannot be read, in every kind of database."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_store import LLVMPIPE, MATMUL, SOFTMAX, add_demo, ok, opaque_entries, session, start, workload

from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.opaque import OpaqueEntry, count_opaque, keep_opaque
from wgtune.database.exchange.unverified import ForeignTrials, known_results, stock_runtime
from wgtune.database.queries.ranked_schedules import RankedSchedules
from wgtune.database.schema.records import OpaqueKind, SessionOutcome, unnamed
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState

TARGET = {"kind": "cuda", "arch": "sm_90"}
GPU = "cuda:nvidia-h200"


@pytest.fixture
def store(any_store: Store) -> Store:
    add_demo(any_store)
    return any_store


def foreign(store: Store) -> ForeignTrials:
    return ForeignTrials(store, GPU, "a test")


def test_times_become_unverified_and_what_is_no_time_a_failure(store: Store) -> None:
    trials = foreign(store)
    for seconds, state in (
        ([2e-3, 1e-3, 3e-3], TrialState.UNVERIFIED),
        ([1e10], TrialState.RUN_ERROR),
        ([1e-3, 1e10], TrialState.RUN_ERROR),
        ([], TrialState.RUN_ERROR),
        ([math.nan], TrialState.RUN_ERROR),
        ([-1.0], TrialState.RUN_ERROR),
    ):
        assert trials.add(MATMUL, f"[{len(seconds)}, {state.value}]", seconds, TARGET, Runtime.TVM_CUDA) is state
    trials.end(SessionOutcome.COMPLETED)
    counts = store.counts(GPU, [MATMUL.id], Runtime.TVM_CUDA)[MATMUL.id]
    assert counts == {TrialState.UNVERIFIED: 1, TrialState.RUN_ERROR: 5}
    [kept] = store.sessions(device_key=GPU)
    assert kept.outcome is SessionOutcome.COMPLETED and json.loads(kept.info.target) == TARGET
    assert (kept.info.device.backend, kept.info.device.model) == ("cuda", "nvidia-h200")
    assert store.best(GPU, [MATMUL.id], Runtime.TVM_CUDA) == {}


def test_each_target_and_each_way_has_a_session_of_its_own(store: Store) -> None:
    trials = foreign(store)
    trials.add(MATMUL, "[1]", [1.0], TARGET, Runtime.TVM_CUDA)
    trials.add(MATMUL, "[2]", [1.0], TARGET, Runtime.TVM_CUDA)
    trials.add(MATMUL, "[3]", [1.0], {"kind": "vulkan"}, Runtime.TVM)
    trials.add(MATMUL, "[4]", [1.0], None, Runtime.TVM)
    trials.end(SessionOutcome.INTERRUPTED)
    kept = store.sessions(device_key=GPU)
    assert len(kept) == 3 and {one.outcome for one in kept} == {SessionOutcome.INTERRUPTED}
    trials.end(SessionOutcome.COMPLETED)
    assert {one.outcome for one in store.sessions(device_key=GPU)} == {SessionOutcome.INTERRUPTED}, "once"


def test_what_is_known_is_told_by_workload_trace_and_samples(store: Store) -> None:
    trials = foreign(store)
    trials.add(MATMUL, "[1]", [2.0, 1.0], TARGET, Runtime.TVM_CUDA)
    trials.add(MATMUL, "[2]", [1e10], TARGET, Runtime.TVM_CUDA)
    trials.add(SOFTMAX, "[3]", [1.0], TARGET, Runtime.TVM_CUDA)
    assert known_results(store, GPU, MATMUL.id) == {("[1]", (2.0, 1.0)), ("[2]", ())}
    assert known_results(store, LLVMPIPE.key, MATMUL.id) == set()


def test_offers_are_each_schedule_once_the_fastest_first_by_what_was_asked_for(store: Store) -> None:
    number = store.begin_session(session())
    store.add_trial(start(number, MATMUL, "[1]"), ok(3.0))
    store.add_trial(start(number, MATMUL, "[2]"), ok(2.0))
    store.add_trial(start(number, MATMUL, "[2]"), ok(1.0))
    trials = ForeignTrials(store, LLVMPIPE.key, "a test", LLVMPIPE)
    trials.add(MATMUL, "[4]", [0.5], TARGET, Runtime.WGPU)
    trials.add(SOFTMAX, "[5]", [0.5], {"kind": "llvm"}, Runtime.TVM)
    verified = RankedSchedules(store, LLVMPIPE.key, Runtime.WGPU)
    assert [(one.trace, one.samples_s) for one in verified.of(MATMUL.id)] == [("[2]", (1.0,)), ("[1]", (3.0,))]
    assert len(verified) == 2 and verified.workloads() == [MATMUL.id]
    measured = RankedSchedules(store, LLVMPIPE.key, Runtime.WGPU, unverified=True)
    assert [one.trace for one in measured.of(MATMUL.id)] == ["[4]", "[2]", "[1]"]
    assert next(measured.of(MATMUL.id)).target == TARGET
    assert [one.trace for one in RankedSchedules(store, LLVMPIPE.key, Runtime.TVM, unverified=True).of(SOFTMAX.id)] == [
        "[5]"
    ]
    assert len(RankedSchedules(store, "vulkan:another", Runtime.WGPU, unverified=True)) == 0


def test_opaque_entries_are_kept_once_with_where_and_why(store: Store) -> None:
    entries = [
        OpaqueEntry(OpaqueKind.WORKLOAD, "w.json", 1, "[1, 2]", "too old"),
        OpaqueEntry(OpaqueKind.RECORD, "r.json", 7, "ünïcode \U0001f600", "its workload is too old"),
        OpaqueEntry(OpaqueKind.RECORD, "r.json", 8, "another", "its workload is too old"),
    ]
    assert keep_opaque(store, entries) == 3
    assert keep_opaque(store, entries[1:]) == 0
    assert opaque_entries(store) == entries
    with store.reading() as connection:
        counted = [(one.source, one.reason, one.entries) for one in count_opaque(connection)]
    assert counted == [("r.json", "its workload is too old", 2), ("w.json", "too old", 1)]


def test_the_way_that_stock_tvm_measures() -> None:
    assert [stock_runtime(kind) for kind in ("cuda", "metal", "llvm", "vulkan", "webgpu", "")] == [
        Runtime.TVM_CUDA,
        Runtime.TVM_METAL,
        *[Runtime.TVM] * 4,
    ]


def test_a_workload_gets_its_name_when_somebody_knows_it(store: Store) -> None:
    """TVM calls every workload ``main``; the capture of a model tells what it is, before or after."""
    nameless = replace(workload("relu"), name=unnamed(workload("relu").id))
    for given, kept in ((nameless, nameless.name), (workload("relu"), "relu"), (nameless, "relu")):
        store.add_workloads([given])
        assert store.workloads([given.id])[given.id].name == kept
    store.add_workloads([replace(workload("relu"), name="another")])
    assert store.workloads([nameless.id])[nameless.id].name == "relu", "one name is as good as another"


@pytest.mark.parametrize("turn", [1, -1])
def test_a_merge_keeps_the_name_that_says_something(tmp_path: Path, turn: int) -> None:
    named, files = workload("a_kernel"), []
    for name in ("a_kernel", unnamed(named.id)):
        files.append(str(tmp_path / f"{len(files)}.db"))
        with Store.open(files[-1]) as one:
            one.add_workloads([replace(named, name=name)])
    merge(files[::turn], str(tmp_path / "into.db"))
    with Store.open(str(tmp_path / "into.db")) as into:
        assert into.workloads([named.id])[named.id].name == "a_kernel"
