"""Leases on kernels: which session holds which kernel, and which kernels other sessions have measured."""

from __future__ import annotations

import time

import pytest
from synthetic_store import CONV, LLVMPIPE, MATMUL, add_demo, measure, ok, session

from wgtune.database.leases import claim
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState
from wgtune.tuner.session import kernel_state
from wgtune.tuner.session.kernel_state import KernelLeases

IDS = [MATMUL.id, CONV.id]


@pytest.fixture
def store():
    with Store.memory() as store:
        add_demo(store)
        yield store


def begin_session(store: Store) -> tuple[KernelLeases, int]:
    session_id = store.begin_session(session())
    leases = KernelLeases(store, LLVMPIPE.key, Runtime.WGPU, IDS)
    leases.begin(session_id)
    return leases, session_id


def test_two_sessions_lease_different_kernels_and_a_third_none(store):
    sessions = [begin_session(store)[0] for _ in range(3)]
    with sessions[0].hold_first(IDS) as one, sessions[1].hold_first(IDS) as two, sessions[2].hold_first(IDS) as three:
        assert [one, two, three] == [MATMUL.id, CONV.id, None]
    with sessions[2].hold_first(IDS) as now:
        assert now == MATMUL.id


def test_only_trials_of_other_sessions_are_changes(store):
    (mine, my_session), (_, other_session) = begin_session(store), begin_session(store)
    assert mine.changed_by_others(IDS) == []
    with mine.hold_first(IDS):
        measure(store, my_session, MATMUL, ok(1e-3), "mine")
    assert mine.changed_by_others(IDS) == []
    measure(store, my_session, CONV, ok(1e-3), "mine, without a lease")
    mine.count_own(CONV.id, TrialState.OK)
    assert mine.changed_by_others(IDS) == []
    measure(store, other_session, CONV, ok(1e-3), "theirs")
    measure(store, my_session, CONV, ok(1e-3), "mine again")
    mine.count_own(CONV.id, TrialState.OK)
    assert mine.changed_by_others(IDS) == [CONV.id]
    assert mine.changed_by_others(IDS) == []


def test_the_lease_of_a_kernel_that_was_taken_over_is_not_renewed(store, monkeypatch):
    (mine, my_session), (_, other_session) = begin_session(store), begin_session(store)
    with mine.hold_first([MATMUL.id]) as kernel:
        monkeypatch.setattr(kernel_state, "_RENEW_AFTER_S", 0.0)
        assert mine.renew(kernel)
        claim(store, my_session, [MATMUL.id], 0.0)
        time.sleep(0.001)
        assert claim(store, other_session, [MATMUL.id]) == MATMUL.id
        assert not mine.renew(kernel)
    # The end of the block does not give back another session's lease.
    assert claim(store, my_session, [MATMUL.id]) is None


def test_after_an_error_the_lease_lasts_until_the_session_ends(store):
    (mine, _), (_, other_session) = begin_session(store), begin_session(store)
    with pytest.raises(RuntimeError), mine.hold_first([MATMUL.id]):
        raise RuntimeError
    assert claim(store, other_session, [MATMUL.id]) is None
