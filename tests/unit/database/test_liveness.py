"""Sessions of dead tuners elsewhere: closed when they were silent for long, open again where one only slept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from synthetic_store import CONV, HOST, LLVMPIPE, MATMUL, add_demo, measure, ok, session, start
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database import liveness
from wgtune.database import store as store_module
from wgtune.database.exchange.admin import info
from wgtune.database.leases import LEASE_S, claim, renew
from wgtune.database.liveness import SILENT_S, silent_sessions
from wgtune.database.schema.records import SessionOutcome
from wgtune.database.schema.rows import lease, trial
from wgtune.database.schema.rows import session as session_table
from wgtune.database.store import Store
from wgtune.support.enums import TrialState
from wgtune.support.errors import DatabaseError

AGO = timedelta(seconds=SILENT_S + LEASE_S + 60)
IDS = [MATMUL.id, CONV.id]


@pytest.fixture
def store(any_store: Store) -> Store:
    add_demo(any_store)
    return any_store


def elsewhere(store: Store) -> int:
    return store.begin_session(replace(session(), host="elsewhere"))


def age(store: Store, by: timedelta = AGO) -> None:
    """Puts everything that was written so far back in time."""
    with store.writing() as connection:
        for table, columns in ((session_table, ["started"]), (trial, ["started", "ended"]), (lease, ["until"])):
            for column in columns:
                for row in connection.execute(table.select().where(table.c[column].is_not(None))).all():
                    same = [key == row._mapping[key.name] for key in table.primary_key]
                    connection.execute(update(table).where(*same).values({column: row._mapping[column] - by}))


def outcomes(store: Store) -> list[SessionOutcome]:
    return [kept.outcome for kept in store.sessions()]


def test_a_silent_session_of_another_host_is_closed_with_a_note(store: Store) -> None:
    one = elsewhere(store)
    measure(store, one, MATMUL, ok(1e-3), "a")
    claim(store, one, IDS)
    store.begin_trial(start(one, MATMUL, "b"))
    age(store)
    assert store.abandon_dead(HOST) == 1
    [kept] = store.sessions()
    assert kept.outcome is SessionOutcome.KILLED and "no sign of life since" in kept.note
    assert store.counts(LLVMPIPE.key, IDS)[MATMUL.id] == {TrialState.OK: 1, TrialState.ABANDONED: 1}


@pytest.mark.parametrize("sign", ["session", "trial", "lease"])
def test_any_sign_of_life_keeps_it_open(store: Store, sign: str) -> None:
    one = elsewhere(store)
    claim(store, one, IDS)
    age(store, AGO if sign != "session" else timedelta(hours=23))
    if sign == "trial":
        store.begin_trial(start(one, MATMUL, "b"))
    elif sign == "lease":
        assert renew(store, one, MATMUL.id)
    store.abandon_dead(HOST)
    assert outcomes(store) == [SessionOutcome.RUNNING]


def test_this_hosts_own_is_asked_for_and_may_be_as_silent_as_it_likes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.begin_session(session())
    age(store)
    with store.reading() as connection:
        assert len(silent_sessions(connection)) == 1
    monkeypatch.setattr(store_module, "is_alive", lambda pid, since: True)
    store.abandon_dead(HOST)
    assert outcomes(store) == [SessionOutcome.RUNNING]


def test_a_tuner_that_was_only_asleep_goes_on(store: Store) -> None:
    one = elsewhere(store)
    claim(store, one, IDS)
    running = store.begin_trial(start(one, MATMUL, "b"))
    age(store)
    store.abandon_dead(HOST)
    store.end_trial(running, ok(1e-3))
    with pytest.raises(DatabaseError, match="has ended already"):
        store.end_trial(running, ok(1e-3))
    assert not renew(store, one, MATMUL.id)
    assert claim(store, one, IDS) == MATMUL.id
    [kept] = store.sessions()
    assert (kept.outcome, kept.ended) == (SessionOutcome.RUNNING, None) and "came back" in kept.note
    measure(store, one, MATMUL, ok(1e-3), "c")
    store.end_session(one, SessionOutcome.COMPLETED)
    assert outcomes(store) == [SessionOutcome.COMPLETED]
    with pytest.raises(DatabaseError, match="has ended"):
        claim(store, one, IDS)


def test_one_that_was_only_asleep_may_end_at_once(store: Store) -> None:
    one = elsewhere(store)
    age(store)
    store.abandon_dead(HOST)
    store.end_session(one, SessionOutcome.INTERRUPTED, "Ctrl-C")
    [kept] = store.sessions()
    assert (kept.outcome, kept.note) == (SessionOutcome.INTERRUPTED, "Ctrl-C")


def test_namesakes_do_not_judge_each_others_processes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(liveness.os, "readlink", lambda path: "pid:[1]")
    monkeypatch.setattr(liveness.platform, "node", lambda: "box")
    there = liveness.host_name.__wrapped__()
    monkeypatch.setattr(liveness.os, "readlink", lambda path: "pid:[2]")
    here = liveness.host_name.__wrapped__()
    assert there != here and all(host.startswith("box [") for host in (there, here))
    store.begin_session(replace(session(), host=there, pid=gone.pid))
    store.abandon_dead(here)
    assert outcomes(store) == [SessionOutcome.RUNNING]
    store.abandon_dead(there)
    assert outcomes(store) == [SessionOutcome.KILLED]


def test_without_proc_a_host_is_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(liveness, "_BOOT", tmp_path / "missing")
    assert liveness.host_name.__wrapped__() == liveness.platform.node()


def test_info_tells_of_silent_sessions(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    with Store.open(path) as store:
        one = elsewhere(store)
        elsewhere(store)
        age(store)
        awake = elsewhere(store)
    assert awake not in info(path).silent and one in info(path).silent
    told = CliRunner().invoke(app, ["db", "info", "--db", path]).stdout
    assert f"silent     session {one} since" in told
