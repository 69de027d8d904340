"""The store: what is written comes back, trials end once, only verified trials of one device and runtime are ranked."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select, update
from synthetic_store import (
    CAPTURE,
    CONV,
    EMBED,
    HOST,
    KERNELS,
    LLVMPIPE,
    MATMUL,
    RADEON,
    add_demo,
    baseline,
    failed,
    measure,
    ok,
    session,
    start,
    workload,
)

from wgtune.database.schema.records import SessionOutcome, TrialKind, TvmForm
from wgtune.database.schema.rows import MAX_TEXT
from wgtune.database.schema.tables import Session, Trial
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import DatabaseError

FAULTS = [state for state in TrialState if state.fault]


@pytest.fixture
def store(any_store):
    add_demo(any_store)
    return any_store


def column(store, of):
    """A column of the one row that there is."""
    with store.reading() as connection:
        return connection.execute(select(of)).scalar_one()


def test_what_is_written_comes_back(store):
    sent = session()
    session_id = store.begin_session(sent)
    sent_trial = start(session_id, MATMUL, '["trace", [1, 2]]')
    trial_id = store.begin_trial(sent_trial)
    store.end_trial(trial_id, ok(3e-5, 1e-5, 2.123456e-5, max_error=0.25))

    assert store.devices() == [LLVMPIPE]
    assert store.model_kernels(CAPTURE) == KERNELS
    assert store.model_kernels("unknown") == []
    assert store.workloads([MATMUL.id, CONV.id, "unknown"]) == {MATMUL.id: MATMUL, CONV.id: CONV}
    [model] = store.models()
    assert (model.capture_key, model.name, model.options["guidance"], model.steps_hint) == (CAPTURE, "demo", True, 20)
    [kept] = store.sessions()
    assert kept.info == sent
    assert (kept.session_id, kept.outcome, kept.ended) == (session_id, SessionOutcome.RUNNING, None)
    record = store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id]
    assert record.samples_s == (3e-5, 1e-5, 2.123456e-5)
    assert record.latency_s == 2.123456e-5
    assert (record.trial_id, record.session_id, record.workload_id) == (trial_id, session_id, MATMUL.id)
    assert (record.device_key, record.runtime, record.kind) == (LLVMPIPE.key, Runtime.WGPU, TrialKind.SEARCH)
    assert (record.trace, record.program_digest) == (sent_trial.trace, sent_trial.program_digest)
    assert (record.needs, record.launches, record.tier, record.timer) == (sent_trial.needs, 1, "default", "timestamp")
    assert (record.max_error, record.rtol, record.atol) == (0.25, 1e-3, 1e-4)
    assert kept.started <= record.created and record.created.utcoffset().total_seconds() == 0


def test_workloads_and_models_can_be_added_again(store):
    before = store.workloads([MATMUL.id])
    add_demo(store)
    assert store.workloads([MATMUL.id]) == before
    assert len(store.models()) == 1 and store.model_kernels(CAPTURE) == KERNELS


def test_a_newer_tvm_adds_its_own_form_of_a_workload(store):
    newer = TvmForm("0.28", "new", "9")
    store.add_workloads([replace(MATMUL, forms=(newer,))])
    kept = store.workloads([MATMUL.id])[MATMUL.id]
    assert kept.forms == (*MATMUL.forms, newer)
    assert kept.text == MATMUL.text


def test_a_device_keeps_its_description_and_gaps_are_filled(store):
    store.begin_session(session(replace(LLVMPIPE, architecture="")))
    store.begin_session(session(replace(LLVMPIPE, model="llvmpipe (LLVM 19)")))
    assert store.devices() == [LLVMPIPE]


def test_unknown_references_are_refused(store):
    session_id = store.begin_session(session())
    with pytest.raises(DatabaseError, match="no workload"):
        store.begin_trial(start(session_id, workload("unheard_of")))
    with pytest.raises(DatabaseError, match="no session 99"):
        store.begin_trial(start(99, MATMUL))
    with pytest.raises(DatabaseError, match="trial 99 does not exist"):
        store.end_trial(99, ok(1e-3))
    with pytest.raises(DatabaseError, match="session 99 does not exist"):
        store.end_session(99, SessionOutcome.COMPLETED)


def test_a_trial_ends_once(store):
    trial_id = measure(store, store.begin_session(session()), MATMUL, ok(1e-3))
    with pytest.raises(DatabaseError, match="has ended already, as ok"):
        store.end_trial(trial_id, failed(TrialState.RUN_ERROR))
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].latency_s == 1e-3


@pytest.mark.parametrize("end", [ok(), ok(1e-3, max_error=math.nan), ok(1e-3, max_error=None), ok(math.nan), ok(-1.0)])
def test_ok_needs_samples_and_a_verification(store, end):
    trial_id = store.begin_trial(start(store.begin_session(session()), MATMUL))
    with pytest.raises(ValueError):
        store.end_trial(trial_id, end)
    store.end_trial(trial_id, failed(TrialState.WRONG_RESULT))


@pytest.mark.parametrize("state", [TrialState.PENDING, TrialState.RUNNING])
def test_a_trial_does_not_end_as_unfinished(store, state):
    with pytest.raises(ValueError):
        store.end_trial(store.begin_trial(start(store.begin_session(session()), MATMUL)), failed(state))


def test_a_nan_in_the_output_is_kept_as_the_largest_error(store):
    session_id = store.begin_session(session())
    measure(store, session_id, MATMUL, replace(failed(TrialState.WRONG_RESULT), max_error=math.nan))
    assert column(store, Trial.max_error) == math.inf


def test_long_or_odd_error_texts_are_kept_in_part(store):
    session_id = store.begin_session(session())
    measure(store, session_id, MATMUL, failed(TrialState.BUILD_ERROR, "first\0\ud800" + "x" * 10**6 + "last"))
    kept = column(store, Trial.error)
    assert kept.startswith("first") and kept.endswith("last") and len(kept) < MAX_TEXT + 100 and "\0" not in kept


def test_best_is_the_lowest_median_and_counts_baselines(store):
    session_id = store.begin_session(session())
    first = baseline(store, session_id, MATMUL, ok(2e-3, 2e-3, 9e-3))
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == first
    measure(store, session_id, MATMUL, ok(1e-3, 3e-3, 3e-3), "lowest minimum")
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == first
    fast = measure(store, session_id, MATMUL, ok(1.5e-3), "fast")
    measure(store, session_id, MATMUL, ok(1.5e-3), "as fast, later")
    assert store.best(LLVMPIPE.key, [MATMUL.id, CONV.id]).keys() == {MATMUL.id}
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == fast
    assert store.baselines(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == first


def test_devices_and_runtimes_are_never_mixed(store):
    here = store.begin_session(session())
    there = store.begin_session(session(RADEON))
    native = store.begin_session(session(RADEON, runtime=Runtime.TVM_CUDA))
    measure(store, here, MATMUL, ok(3e-3))
    measure(store, there, MATMUL, ok(2e-3))
    measure(store, native, MATMUL, ok(1e-3))
    ids = [MATMUL.id]
    assert store.best(LLVMPIPE.key, ids)[MATMUL.id].latency_s == 3e-3
    assert store.best(RADEON.key, ids)[MATMUL.id].latency_s == 2e-3
    assert store.best(RADEON.key, ids, Runtime.TVM_CUDA)[MATMUL.id].latency_s == 1e-3
    assert store.best(LLVMPIPE.key, ids, Runtime.TVM_CUDA) == {}
    assert [len(store.tried(RADEON.key, MATMUL.id, runtime)) for runtime in Runtime] == [1, 1, 0, 0, 0]
    assert store.counts(RADEON.key, ids) == {MATMUL.id: {TrialState.OK: 1}}
    assert [point.latency_s for point in store.history(RADEON.key, ids)] == [2e-3]


def test_best_takes_only_records_that_fit(store):
    session_id = store.begin_session(session(tier="desktop"))
    big = replace(start(session_id, MATMUL, "big"), needs={"workgroup_bytes": 32768})
    store.end_trial(store.begin_trial(big), ok(1e-3))
    small = measure(store, session_id, MATMUL, ok(2e-3), "small")
    ids = [MATMUL.id]
    assert store.best(LLVMPIPE.key, ids)[MATMUL.id].tier == "desktop"
    fitting = store.best(LLVMPIPE.key, ids, fits=lambda needs: needs["workgroup_bytes"] <= 16384)
    assert fitting[MATMUL.id].trial_id == small
    assert store.best(LLVMPIPE.key, ids, fits=lambda needs: False) == {}


def test_tried_holds_every_ended_trial_but_abandoned_ones(store):
    session_id = store.begin_session(session())
    for state in FAULTS:
        measure(store, session_id, MATMUL, failed(state), state.value)
    measure(store, session_id, MATMUL, failed(TrialState.ABANDONED), "abandoned")
    measure(store, session_id, MATMUL, ok(1e-3), "ok")
    store.begin_trial(start(session_id, MATMUL, "running"))
    tried = store.tried(LLVMPIPE.key, MATMUL.id)
    assert [summary.state for summary in tried] == [*FAULTS, TrialState.OK]
    assert [summary.trace for summary in tried] == [*(state.value for state in FAULTS), "ok"]
    assert [summary.latency_s for summary in tried] == [None] * len(FAULTS) + [1e-3]
    assert store.tried(LLVMPIPE.key, CONV.id) == []
    counts = store.counts(LLVMPIPE.key, [MATMUL.id, CONV.id])[MATMUL.id]
    assert counts == dict.fromkeys((*FAULTS, TrialState.ABANDONED, TrialState.OK, TrialState.RUNNING), 1)


def test_ending_a_session_abandons_what_it_left_running(store):
    session_id = store.begin_session(session())
    store.begin_trial(start(session_id, MATMUL))
    store.end_session(session_id, SessionOutcome.INTERRUPTED, "Ctrl-C")
    [kept] = store.sessions()
    assert (kept.outcome, kept.note) == (SessionOutcome.INTERRUPTED, "Ctrl-C") and kept.ended >= kept.started
    assert store.counts(LLVMPIPE.key, [MATMUL.id]) == {MATMUL.id: {TrialState.ABANDONED: 1}}
    with pytest.raises(DatabaseError, match="has ended already, as interrupted"):
        store.end_session(session_id, SessionOutcome.COMPLETED)
    with pytest.raises(ValueError):
        store.end_session(session_id, SessionOutcome.RUNNING)


def test_sessions_can_be_narrowed(store):
    ids = [store.begin_session(session(device)) for device in (LLVMPIPE, RADEON, LLVMPIPE)]
    other = store.begin_session(session(capture_key="d" * 64))
    assert [kept.session_id for kept in store.sessions()] == [other, *reversed(ids)]
    assert [kept.session_id for kept in store.sessions(limit=1)] == [other]
    assert [kept.session_id for kept in store.sessions(device_key=RADEON.key)] == [ids[1]]
    assert [kept.session_id for kept in store.sessions(device_key=LLVMPIPE.key, capture_key=CAPTURE)] == [
        ids[2],
        ids[0],
    ]
    assert len({kept.uid for kept in store.sessions()}) == 4


def test_dead_processes_are_found_and_live_ones_left_alone(store):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = store.begin_session(session(pid=gone.pid))
    alive = store.begin_session(session())
    store.begin_trial(start(dead, MATMUL))
    store.begin_trial(start(alive, MATMUL))
    assert store.abandon_dead("another host") == 0
    assert store.abandon_dead(HOST) == 1
    outcomes = {kept.session_id: kept.outcome for kept in store.sessions()}
    assert outcomes == {dead: SessionOutcome.KILLED, alive: SessionOutcome.RUNNING}
    assert store.counts(LLVMPIPE.key, [MATMUL.id])[MATMUL.id] == {TrialState.ABANDONED: 1, TrialState.RUNNING: 1}
    assert store.abandon_dead(HOST) == 0


def test_a_process_id_used_again_is_another_process(store):
    session_id = store.begin_session(session())
    with store.writing() as connection:
        connection.execute(update(Session).values(started=datetime(2020, 1, 1, tzinfo=timezone.utc)))
    assert store.abandon_dead(HOST) == 0
    assert [kept.outcome for kept in store.sessions()] == [SessionOutcome.KILLED]
    assert store.sessions()[0].session_id == session_id


def test_threads_may_share_a_store(store):
    session_id = store.begin_session(session())
    kernels = [EMBED, MATMUL, CONV]

    def tune(kernel):
        for i in range(10):
            measure(store, session_id, kernel, ok(1e-3 * (i + 1)), f"{kernel.name} {i}")

    threads = [threading.Thread(target=tune, args=[kernel]) for kernel in kernels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = store.counts(LLVMPIPE.key, [kernel.id for kernel in kernels])
    assert counts == {kernel.id: {TrialState.OK: 10} for kernel in kernels}


class AnyOrder(RuleBasedStateMachine):
    """Any interleaving of sessions and trials: a plain model beside the store says what must come out."""

    def __init__(self):
        super().__init__()
        self.store = Store.memory()
        add_demo(self.store)
        self.open: dict[int, set[int]] = {}
        self.states: dict[int, TrialState] = {}
        self.latencies: dict[int, float] = {}

    def teardown(self):
        self.store.close()

    @rule()
    def begin_session(self):
        self.open[self.store.begin_session(session())] = set()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def begin_trial(self, data):
        session_id = data.draw(st.sampled_from(sorted(self.open)))
        trial_id = self.store.begin_trial(start(session_id, MATMUL, f"trace {len(self.states) % 5}"))
        assert trial_id not in self.states
        self.open[session_id].add(trial_id)
        self.states[trial_id] = TrialState.RUNNING

    @precondition(lambda self: self.states)
    @rule(
        data=st.data(),
        state=st.sampled_from([TrialState.OK, *FAULTS]),
        samples=st.lists(st.integers(1, 50).map(lambda n: n * 1e-6), min_size=1, max_size=4),
    )
    def end_trial(self, data, state, samples):
        trial_id = data.draw(st.sampled_from(sorted(self.states)))
        end = ok(*samples) if state is TrialState.OK else failed(state)
        if self.states[trial_id] not in (TrialState.RUNNING, TrialState.ABANDONED):
            with pytest.raises(DatabaseError):
                self.store.end_trial(trial_id, end)
            return
        self.store.end_trial(trial_id, end)
        self.states[trial_id] = state
        if state is TrialState.OK:
            self.latencies[trial_id] = statistics.median(samples)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end_session(self, data):
        session_id = data.draw(st.sampled_from(sorted(self.open)))
        self.store.end_session(session_id, SessionOutcome.COMPLETED)
        for trial_id in self.open.pop(session_id):
            if self.states[trial_id] is TrialState.RUNNING:
                self.states[trial_id] = TrialState.ABANDONED

    @invariant()
    def the_store_agrees(self):
        counts = self.store.counts(LLVMPIPE.key, [MATMUL.id]).get(MATMUL.id, {})
        expected = list(self.states.values())
        assert counts == {state: expected.count(state) for state in set(expected)}
        best = self.store.best(LLVMPIPE.key, [MATMUL.id])
        if not self.latencies:
            assert best == {}
        else:
            winner = min(self.latencies, key=lambda trial_id: (round(self.latencies[trial_id], 12), trial_id))
            assert best[MATMUL.id].trial_id == winner
        known = [summary.trial_id for summary in self.store.tried(LLVMPIPE.key, MATMUL.id)]
        assert known == [i for i, state in self.states.items() if state.ended and state is not TrialState.ABANDONED]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
