"""Trials measured again: a repeat takes the earlier ones' place in every ranking, a check none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_store import CONV, LLVMPIPE, MATMUL, TrialState, add_demo, failed, ok, session, start

from wgtune.database.queries.layers import Layers
from wgtune.database.schema.records import TrialKind
from wgtune.database.schema.rows import trial
from wgtune.database.sql_reader import is_superseded
from wgtune.database.store import Store
from wgtune.support.enums import CacheState


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "x.db")) as opened:
        add_demo(opened)
        yield opened


def measured(store, session_id, trace, end, kind=TrialKind.SEARCH, repeat=False, kernel=MATMUL):
    return store.add_trial(replace(start(session_id, kernel, trace, kind), repeat=repeat), end)


def test_the_latest_repeat_counts_and_nothing_is_overwritten(store):
    session_id = store.begin_session(session())
    lucky = measured(store, session_id, "a", ok(1e-3))
    measured(store, session_id, "b", ok(2e-3))
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == lucky
    measured(store, session_id, "a", ok(5e-3), repeat=True)
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trace == "b"
    last = measured(store, session_id, "a", ok(1.5e-3), repeat=True)
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == last
    assert [t.latency_s for t in store.tried(LLVMPIPE.key, MATMUL.id)] == [2e-3, 1.5e-3]
    assert store.counts(LLVMPIPE.key, [MATMUL.id])[MATMUL.id] == {TrialState.OK: 4}


def test_a_repeat_that_fails_and_other_kernels_repeats_take_no_place(store):
    session_id = store.begin_session(session())
    first = measured(store, session_id, "a", ok(1e-3))
    measured(store, session_id, "a", failed(TrialState.RUN_TIMEOUT), repeat=True)
    measured(store, session_id, "a", ok(9e-3), repeat=True, kernel=CONV)
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == first


@pytest.mark.parametrize("state", [TrialState.WRONG_RESULT, TrialState.BUILD_ERROR, TrialState.DEVICE_LOST])
def test_a_repeat_that_fails_as_another_program_takes_the_earlier_ones_place(store, state):
    """The code generator has changed. A lost device says nothing about the program."""
    session_id = store.begin_session(session())
    first = measured(store, session_id, "a", ok(1e-3))
    second = measured(store, session_id, "b", ok(2e-3))
    again = replace(start(session_id, MATMUL, "a"), repeat=True, program_digest="another")
    store.add_trial(again, failed(state))
    left = first if state is TrialState.DEVICE_LOST else second
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == left


def test_the_latest_baseline_counts_however_fast_an_earlier_one_was(store):
    session_id = store.begin_session(session())
    measured(store, session_id, "before", ok(1e-3), TrialKind.BASELINE)
    latest = measured(store, session_id, "today", ok(2e-3), TrialKind.BASELINE)
    assert store.baselines(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == latest
    other = Store.memory()
    for layers in (Layers(store, [other]), Layers(other, [store])):
        assert layers.baselines(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].latency_s == 2e-3


def test_a_baselines_repeat_is_the_baseline(store):
    session_id = store.begin_session(session())
    measured(store, session_id, "base", ok(1e-3), TrialKind.BASELINE)
    again = measured(store, session_id, "base", ok(2e-3), TrialKind.BASELINE, repeat=True)
    assert store.baselines(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == again


def test_checks_are_never_ranked(store):
    session_id = store.begin_session(session())
    first = measured(store, session_id, "a", ok(1e-3))
    measured(store, session_id, "a", ok(1e-4), TrialKind.CHECK)
    assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trial_id == first
    assert [t.trial_id for t in store.tried(LLVMPIPE.key, MATMUL.id)] == [first]
    assert [point.latency_s for point in store.history(LLVMPIPE.key, [MATMUL.id])] == [1e-3]


def test_looking_for_repeats_does_not_walk_all_trials(store):
    """Rankings ask for every trial that they visit."""
    from sqlalchemy import select

    query = select(trial.c.id).where(~is_superseded()).compile(store._engine, compile_kwargs={"literal_binds": True})
    with store.reading() as connection:
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
    assert "SEARCH later USING INDEX ix_trial_schedule_id" in plan


def test_warm_up_and_the_caches_state_are_kept(store):
    session_id = store.begin_session(replace(session(), cache=CacheState.COLD))
    measured(store, session_id, "a", replace(ok(1e-3), warmup_s=(5e-3, 2e-3)))
    assert store.sessions()[0].info.cache is CacheState.COLD
    from sqlalchemy import select

    with store.reading() as connection:
        assert connection.execute(select(trial.c.warmup_s)).scalar() == [5e-3, 2e-3]
    with pytest.raises(ValueError, match="not durations"):
        measured(store, session_id, "b", replace(ok(1e-3), warmup_s=(-1.0,)))
