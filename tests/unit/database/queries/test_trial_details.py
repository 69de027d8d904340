"""All of a trial is kept and can be seen; measuring again adds and writes nothing over."""

from __future__ import annotations

import pytest
from synthetic_store import MATMUL, add_demo, measure, ok, session

from wgtune.database.queries.replay_status import book
from wgtune.database.queries.trial_details import show_session, show_trial
from wgtune.database.schema.records import ReplayRecord, ReplayStatus
from wgtune.database.store import Store
from wgtune.support.errors import UsageError


def test_measuring_again_adds_and_keeps_what_was() -> None:
    with Store.memory() as store:
        add_demo(store)
        number = store.begin_session(session())
        measure(store, number, MATMUL, ok(3e-3, 1e-3, 2e-3), "trace")
        before = show_trial(store, number, 1)
        assert before["samples_s"] == [3e-3, 1e-3, 2e-3] and before["seed"] == 7 and before["trace"] == "trace"
        assert before["needs"]["threads"] == 64 and before["max_error"] == 1e-6 and before["rtol"] == 1e-3
        measure(store, number, MATMUL, ok(5e-3), "trace")
        assert show_trial(store, number, 1) == before
        assert show_trial(store, number, 2)["samples_s"] == [5e-3]
        assert show_session(store, number).info == session()


def test_what_is_not_there_is_said() -> None:
    with Store.memory() as store:
        with pytest.raises(UsageError, match="no session 9"):
            show_session(store, 9)
        with pytest.raises(UsageError, match="no trial 9/1"):
            show_trial(store, 9, 1)


def test_a_trial_says_which_tvm_applies_its_schedule() -> None:
    with Store.memory() as store:
        add_demo(store)
        number = store.begin_session(session())
        measure(store, number, MATMUL, ok(1e-3), "trace")
        assert show_trial(store, number, 1)["replays"] == {}
        book(store, [ReplayRecord(MATMUL.id, "trace", "0.9", ReplayStatus.REPLAYABLE)])
        book(store, [ReplayRecord(MATMUL.id, "trace", "0.10", ReplayStatus.STALE, "no such block")])
        assert show_trial(store, number, 1)["replays"] == {"0.10": "stale: no such block", "0.9": "replayable"}
