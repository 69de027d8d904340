"""Merging: any order, any grouping and any number of times give the same content, and no trial is lost."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from folders import DATABASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from synthetic_store import CAPTURE, CONV, LLVMPIPE, MATMUL, RADEON, add_demo, failed, measure, ok, session, start

from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.portable_rows import content_digest
from wgtune.database.schema.records import SessionOutcome, TrialEnd, TrialKind
from wgtune.database.schema.rows import device, trial
from wgtune.database.store import Store
from wgtune.support.enums import CacheState, TrialState
from wgtune.support.errors import DatabaseError

pytestmark = pytest.mark.slow

_ENDS: list[TrialEnd | None] = [
    ok(0.01, 0.02, 0.03),
    failed(TrialState.WRONG_RESULT),
    failed(TrialState.ABANDONED),
    None,
]
_TRIALS = st.lists(st.tuples(st.sampled_from([MATMUL, CONV]), st.integers(0, 3), st.sampled_from(_ENDS)), max_size=4)
_SESSIONS = st.lists(st.tuples(st.sampled_from([LLVMPIPE, RADEON]), _TRIALS, st.booleans()), max_size=2)


def fill(path: Path, sessions: Sequence) -> None:
    with Store.open(str(path)) as store:
        add_demo(store)
        for info, trials, closed in sessions:
            session_id = store.begin_session(session(info))
            for kernel, trace, end in trials:
                trial_id = store.begin_trial(start(session_id, kernel, f"trace {trace}"))
                if end is not None:
                    store.end_trial(trial_id, end)
            if closed:
                store.end_session(session_id, SessionOutcome.COMPLETED)


def content(path: Path) -> str:
    with Store.open(str(path), create=False) as store:
        return content_digest(store)


def trials(path: Path) -> int:
    with Store.open(str(path), create=False) as store, store.reading() as connection:
        return connection.execute(select(func.count()).select_from(trial)).scalar_one()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(_SESSIONS, _SESSIONS, _SESSIONS), _TRIALS, st.booleans())
def test_every_order_and_grouping_gives_the_same_content(tmp_path_factory, made, more, closing) -> None:
    folder = tmp_path_factory.mktemp("merge")
    paths = [folder / f"{name}.db" for name in "abc"]
    fill(paths[0], made[0])
    # The second begins as a copy of the first and goes on: both hold the same trials, in different states.
    shutil.copy(paths[0], paths[1])
    with Store.open(str(paths[1])) as store, store.reading() as connection:
        running = connection.execute(select(trial.c.id).where(trial.c.state == TrialState.RUNNING)).scalars().all()
    with Store.open(str(paths[1])) as store:
        for trial_id in running:
            store.end_trial(trial_id, ok(0.5, 0.6))
    with Store.open(str(paths[0])) as store:
        for one in store.sessions():
            if closing and one.outcome is SessionOutcome.RUNNING:
                store.end_session(one.session_id, SessionOutcome.KILLED)
    fill(paths[1], made[1])
    fill(paths[2], [*made[2], (replace(RADEON, model="", vendor="amd"), more, True)])

    # Copied for each target, since making a database takes as long as merging two of this size.
    empty = folder / "empty.db"
    Store.open(str(empty)).close()

    def target_of(name: str) -> Path:
        return Path(shutil.copy(empty, folder / name))

    digests = set()
    for number, order in enumerate(itertools.permutations(paths)):
        target = target_of(f"all{number}.db")
        merge([str(path) for path in order], str(target))
        digests.add(content(target))
        if number == 0:
            again = merge([str(path) for path in order], str(target))
            assert not any(again.added.values()) and not again.changed
            digests.add(content(target))
        # A pair of its own first, and that merged with the third.
        pair, grouped = target_of(f"pair{number}.db"), target_of(f"grouped{number}.db")
        merge([str(order[0]), str(order[1])], str(pair))
        merge([str(order[2]), str(pair)], str(grouped))
        digests.add(content(grouped))
    assert len(digests) == 1


def test_no_trial_is_lost_and_the_inputs_keep_their_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", [(LLVMPIPE, [(MATMUL, 1, ok(0.01)), (MATMUL, 2, None)], True)])
    fill(tmp_path / "b.db", [(LLVMPIPE, [(MATMUL, 1, ok(0.02)), (CONV, 3, failed(TrialState.RUN_ERROR))], True)])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = merge([str(tmp_path / "a.db"), str(tmp_path / "b.db")], str(tmp_path / "all.db"))
    assert trials(tmp_path / "all.db") == 4 == done.added["trial"]
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.glob("[ab].db-*"))
    with Store.open(str(tmp_path / "all.db")) as store:
        assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].latency_s == 0.01
        assert [kernel.calls for kernel in store.model_kernels(CAPTURE)]


def test_content_does_not_hang_on_ids(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", [(RADEON, [(CONV, 1, ok(0.01))], True), (LLVMPIPE, [(MATMUL, 2, ok(0.01))], True)])
    fill(tmp_path / "b.db", [(LLVMPIPE, [(MATMUL, 9, ok(0.5))], True)])
    merge([str(tmp_path / "b.db"), str(tmp_path / "a.db")], str(tmp_path / "ba.db"))
    merge([str(tmp_path / "a.db"), str(tmp_path / "b.db")], str(tmp_path / "ab.db"))
    assert content(tmp_path / "ab.db") == content(tmp_path / "ba.db") != content(tmp_path / "a.db")
    with Store.open(str(tmp_path / "ab.db")) as store, store.writing() as connection:
        connection.execute(trial.update().where(trial.c.number == 1).values(error="tampered"))
    assert content(tmp_path / "ab.db") != content(tmp_path / "ba.db")


def test_two_final_contents_of_one_trial_are_told_and_settled_alike(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", [(LLVMPIPE, [(MATMUL, 1, ok(0.02))], True)])
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    with Store.open(str(tmp_path / "b.db")) as store, store.writing() as connection:
        connection.execute(trial.update().values(latency_s=0.01, samples_s=[0.01]))
    for target, order in (("ab.db", "ab"), ("ba.db", "ba")):
        done = merge([str(tmp_path / f"{name}.db") for name in order], str(tmp_path / target))
        assert done.conflicts == {"trial": 1}
    assert content(tmp_path / "ab.db") == content(tmp_path / "ba.db")


def test_a_device_keeps_what_describes_it(tmp_path: Path) -> None:
    for name, info in (("a", replace(RADEON, architecture="")), ("b", replace(RADEON, model="")), ("c", RADEON)):
        fill(tmp_path / f"{name}.db", [(info, [], True)])
    merge([str(tmp_path / "a.db"), str(tmp_path / "b.db")], str(tmp_path / "all.db"))
    with Store.open(str(tmp_path / "all.db")) as store, store.reading() as connection:
        row = connection.execute(select(device)).one()
    assert (row.architecture, row.model) == (RADEON.architecture, RADEON.model)


def test_an_older_schema_is_upgraded_aside(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with sqlite3.connect(old) as connection:
        connection.executescript((DATABASES / "revision_0001.sql").read_text())
    connection.close()
    before = old.read_bytes()
    merge([str(old)], str(tmp_path / "new.db"))
    shutil.copy(old, tmp_path / "upgraded.db")
    with Store.open(str(tmp_path / "upgraded.db")):
        pass
    assert content(tmp_path / "new.db") == content(tmp_path / "upgraded.db")
    assert old.read_bytes() == before and trials(tmp_path / "new.db") > 0


def test_a_newer_schema_is_refused_and_nothing_of_it_merged(tmp_path: Path) -> None:
    fill(tmp_path / "new.db", [(LLVMPIPE, [(MATMUL, 1, ok(0.02))], True)])
    with Store.open(str(tmp_path / "new.db")) as store, store.writing() as connection:
        connection.execute(text("UPDATE wgtune_revision SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="newer wgtune"):
        merge([str(tmp_path / "new.db")], str(tmp_path / "all.db"))
    assert trials(tmp_path / "all.db") == 0


def test_a_database_is_not_merged_into_itself(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", [])
    with pytest.raises(DatabaseError, match="into itself"):
        merge([str(tmp_path / "a.db")], str(tmp_path / "." / "a.db"))


def test_times_of_cold_and_of_warm_caches_are_not_merged(tmp_path: Path) -> None:
    for name, cache, info in (("warm", CacheState.WARM, LLVMPIPE), ("cold", CacheState.COLD, LLVMPIPE)):
        with Store.open(str(tmp_path / name)) as store:
            add_demo(store)
            measure(store, store.begin_session(replace(session(info), cache=cache)), MATMUL, ok(1e-3), "a")
    with Store.open(str(tmp_path / "cold of another")) as store:
        add_demo(store)
        measure(store, store.begin_session(replace(session(RADEON), cache=CacheState.COLD)), MATMUL, ok(1e-3), "a")
    into = str(tmp_path / "all")
    merge([str(tmp_path / "warm"), str(tmp_path / "cold of another")], into)
    before = content(Path(into))
    with pytest.raises(DatabaseError, match=f"times of {LLVMPIPE.key} with cold caches"):
        merge([str(tmp_path / "cold")], into)
    assert content(Path(into)) == before


def test_a_live_tuner_is_merged_as_it_stands(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "a.db")) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        measure(store, session_id, MATMUL, ok(0.01), "t", TrialKind.SEARCH)
        merge([str(tmp_path / "a.db")], str(tmp_path / "all.db"))
        measure(store, session_id, MATMUL, ok(0.005), "u", TrialKind.SEARCH)
    merge([str(tmp_path / "a.db")], str(tmp_path / "all.db"))
    assert trials(tmp_path / "all.db") == 2
