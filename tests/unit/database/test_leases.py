"""Leases: a workload has one tuner at a time, a dead one's is taken over, and late results count once."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import select
from synthetic_store import CAPTURE, CONV, EMBED, LLVMPIPE, MATMUL, RADEON, add_demo, failed, ok, session, start

from wgtune.database.exchange.admin import check
from wgtune.database.leases import claim, give_back, renew
from wgtune.database.liveness import server_time
from wgtune.database.schema.records import SessionOutcome
from wgtune.database.schema.rows import lease, workload
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.errors import DatabaseError

pytestmark = pytest.mark.slow

ALL = [MATMUL.id, CONV.id, EMBED.id]


@pytest.fixture
def store(any_store):
    add_demo(any_store)
    return any_store


@pytest.fixture
def two(store):
    """Two sessions on one device."""
    return store.begin_session(session()), store.begin_session(replace(session(), host="elsewhere"))


def live_leases(store):
    """Session ids by workload id, of the leases that have not expired."""
    with store.reading() as connection:
        query = select(workload.c.digest, lease.c.session_id).join_from(lease, workload)
        rows = connection.execute(query.where(lease.c.until > server_time(connection)))
        return {row.digest: row.session_id for row in rows}


def test_claims_go_by_priority_and_never_to_two(store, two):
    one, other = two
    assert [claim(store, one, ALL), claim(store, other, ALL)] == [MATMUL.id, CONV.id]
    assert claim(store, other, [MATMUL.id]) is None
    assert claim(store, one, []) is None
    assert live_leases(store) == {MATMUL.id: one, CONV.id: other}


def test_a_claim_of_what_is_held_puts_it_off(store, two):
    one, other = two
    claim(store, one, [MATMUL.id], 0.0)
    assert claim(store, one, ALL) == MATMUL.id
    assert claim(store, other, ALL) == CONV.id


def test_what_is_given_back_is_free(store, two):
    one, other = two
    claim(store, one, ALL)
    give_back(store, other, MATMUL.id)  # not theirs
    assert claim(store, other, [MATMUL.id]) is None
    give_back(store, one, MATMUL.id)
    assert claim(store, other, ALL) == MATMUL.id
    assert not renew(store, one, MATMUL.id)


def test_other_devices_and_runtimes_have_leases_of_their_own(store):
    infos = [session(), session(RADEON), session(RADEON, runtime=Runtime.TVM_CUDA)]
    assert [claim(store, store.begin_session(info), ALL) for info in infos] == [MATMUL.id] * 3


def test_a_lease_that_ran_out_is_taken_over_and_a_late_result_counts_once(store, two):
    one, other = two
    claim(store, one, ALL, 0.02)
    left = store.begin_trial(start(one, MATMUL, "left"))
    elsewhere = store.begin_trial(start(one, CONV, "on another workload"))
    assert renew(store, one, MATMUL.id, 0.02)
    time.sleep(0.05)
    assert live_leases(store) == {}
    assert claim(store, other, ALL) == MATMUL.id
    assert not renew(store, one, MATMUL.id)
    counts = store.counts(LLVMPIPE.key, ALL)
    assert counts == {MATMUL.id: {TrialState.ABANDONED: 1}, CONV.id: {TrialState.RUNNING: 1}}
    store.end_trial(left, ok(1e-3))
    with pytest.raises(DatabaseError, match="has ended already, as ok"):
        store.end_trial(left, ok(1e-6))
    assert store.best(LLVMPIPE.key, ALL)[MATMUL.id].latency_s == 1e-3
    store.end_trial(elsewhere, failed(TrialState.RUN_ERROR))


def test_a_lease_that_ran_out_and_nobody_took_goes_on(store, two):
    claim(store, two[0], ALL, 0.0)
    assert renew(store, two[0], MATMUL.id)
    assert claim(store, two[1], [MATMUL.id]) is None


def test_the_end_of_a_session_gives_its_leases_back(store, two):
    one, other = two
    claim(store, one, ALL)
    store.end_session(one, SessionOutcome.INTERRUPTED)
    assert claim(store, other, ALL) == MATMUL.id
    with pytest.raises(DatabaseError, match="has ended"):
        claim(store, one, ALL)


def test_what_does_not_exist_cannot_be_claimed(store, two):
    with pytest.raises(DatabaseError, match="session 99 does not exist"):
        claim(store, 99, ALL)
    with pytest.raises(DatabaseError, match="no workload"):
        claim(store, two[0], ["unheard of"])


def _hammer(url, number, rounds, results):
    """All that two tuners may do at the same moment, on the same new rows."""
    try:
        with Store.open(url) as store:
            ended = []
            for i in range(rounds):
                add_demo(store, capture_key=f"{i:064x}")
                session_id = store.begin_session(
                    session(replace(LLVMPIPE, key=f"vulkan:{i}", model=f"as {number} saw"))
                )
                for _ in range(3):
                    if (mine := claim(store, session_id, ALL)) is None:
                        continue
                    kernel = next(kernel for kernel in (MATMUL, CONV, EMBED) if kernel.id == mine)
                    trial_id = store.begin_trial(start(session_id, kernel, f"trace {i}"))
                    assert renew(store, session_id, mine)
                    store.end_trial(trial_id, ok(1e-3))
                    ended.append(trial_id)
                    give_back(store, session_id, mine)
                store.end_session(session_id, SessionOutcome.COMPLETED)
            results.put(ended)
    except BaseException as error:
        results.put(error)
        raise


def test_many_writers_of_the_same_new_rows(shared_url):
    writers, rounds = 4, 15
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_hammer, args=(shared_url, i, rounds, results)) for i in range(writers)]
    for process in processes:
        process.start()
    ended = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert not [error for error in ended if isinstance(error, BaseException)]
    together = list(itertools.chain(*ended))
    assert together and len(set(together)) == len(together)
    with Store.open(shared_url) as store:
        devices = [device.key for device in store.devices()]
        assert len(devices) == rounds and len(store.models()) == rounds
        counts = Counter()
        for key in devices:
            for states in store.counts(key, ALL).values():
                counts.update(states)
        assert counts == {TrialState.OK: len(together)}
        assert len(store.sessions()) == writers * rounds
        assert store.model_kernels(CAPTURE) == []
    assert check(shared_url) == []


def _claim_at(url, session_id, moment, results):
    with Store.open(url) as store:
        time.sleep(max(0.0, moment - time.time()))
        results.put(claim(store, session_id, ALL))


def test_claims_at_the_same_moment_get_different_workloads(shared_url):
    with Store.open(shared_url) as store:
        add_demo(store)
        ids = [store.begin_session(session()) for _ in range(4)]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    moment = time.time() + 2.0
    processes = [context.Process(target=_claim_at, args=(shared_url, i, moment, results)) for i in ids]
    for process in processes:
        process.start()
    got = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert Counter(got) == {MATMUL.id: 1, CONV.id: 1, EMBED.id: 1, None: 1}
