"""Opening databases: new ones, older ones, and everything that is not a database of ours."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from synthetic_store import CAPTURE, LLVMPIPE, MATMUL, add_demo, baseline, failed, measure, ok, session, start

from wgtune.database.exchange import admin
from wgtune.database.schema import engine
from wgtune.database.schema.engine import parse_url
from wgtune.database.schema.records import SessionOutcome
from wgtune.database.store import Store
from wgtune.support.enums import TrialState
from wgtune.support.errors import DatabaseError


def refused(url, **options) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        Store.open(str(url), **options)
    assert caught.value.hint
    return caught.value


def test_a_path_and_a_url_name_the_same_file(tmp_path):
    with Store.open(str(tmp_path / "a b.db")) as store:
        add_demo(store)
    with Store.open(f"sqlite:///{tmp_path}/a b.db") as store:
        assert store.models()[0].capture_key == CAPTURE
        assert store.name == str(tmp_path / "a b.db")


def test_the_default_database_is_made_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("WGTUNE_DB", raising=False)
    monkeypatch.setenv("WGTUNE_DATA", str(tmp_path / "new" / "folder"))
    with pytest.raises(DatabaseError, match="no database"):
        Store.open(create=False)
    Store.open().close()
    assert (tmp_path / "new" / "folder" / "wgtune.db").is_file()
    Store.open(create=False).close()


def test_an_explicit_folder_must_exist(tmp_path):
    error = refused(tmp_path / "missing" / "x.db")
    assert "missing is not a folder" in error.message and "mkdir -p" in error.hint
    assert not (tmp_path / "missing").exists()


def test_without_create_nothing_is_made(tmp_path):
    assert "no database" in refused(tmp_path / "x.db", create=False).message
    assert "no database" in refused(tmp_path / "missing" / "x.db", create=False).message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_database(tmp_path):
    assert "is a folder" in refused(tmp_path).message


def test_another_kind_of_file(tmp_path):
    (tmp_path / "x.db").write_text("name,latency\nmatmul,3\n")
    assert "is not a SQLite database" in refused(tmp_path / "x.db").message
    assert (tmp_path / "x.db").read_text().startswith("name,latency")


def test_an_empty_file_is_a_new_database(tmp_path):
    (tmp_path / "x.db").touch()
    Store.open(str(tmp_path / "x.db")).close()


def test_another_programs_database(tmp_path):
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.executescript("CREATE TABLE alembic_version (version_num TEXT); CREATE TABLE photos (id INTEGER)")
    connection.close()
    assert "another program's database" in refused(tmp_path / "x.db").message
    with pytest.raises(DatabaseError, match="another program's"):
        admin.check(str(tmp_path / "x.db"))


def test_a_newer_schema_says_what_to_type(tmp_path):
    Store.open(str(tmp_path / "x.db")).close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE wgtune_revision SET version_num = '9999'")
    error = refused(tmp_path / "x.db")
    assert "9999" in error.message and "newer wgtune" in error.message and "pip install --upgrade" in error.hint


@pytest.mark.parametrize("at", [100, 4096])
def test_a_damaged_file(tmp_path, at):
    path = tmp_path / "x.db"
    with Store.open(str(path)) as store:
        add_demo(store)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * (path.stat().st_size - at))
    error = refused(path)
    assert "malformed" in error.message and "damaged" in error.hint
    assert any("malformed" in problem for problem in admin.check(str(path)))


def test_a_damaged_value(tmp_path):
    path = tmp_path / "x.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        measure(store, store.begin_session(session()), MATMUL, ok(1e-3), "trace")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE schedule SET trace = x'00'")
        with pytest.raises(DatabaseError, match="cannot be read back"):
            store.best(LLVMPIPE.key, [MATMUL.id])


def test_a_truncated_file(tmp_path):
    path = tmp_path / "x.db"
    with Store.open(str(path)) as store:
        add_demo(store)
    half = path.stat().st_size // 8192 * 4096
    os.truncate(path, half)
    assert admin.check(str(path))
    os.truncate(path, half - 1)
    assert "cut short" in refused(path).message


def test_a_folder_that_takes_no_files():
    error = refused("/proc/wgtune.db") if Path("/proc/self").exists() else refused("/wgtune.db")
    assert "read-only" in error.message or "unable to open" in error.message


def _open_without_rights(path: str, pipe) -> None:
    if os.geteuid() == 0:  # root may write anywhere
        os.setgid(65534)
        os.setuid(65534)
    try:
        Store.open(path).close()
        pipe.send("opened")
    except DatabaseError as error:
        pipe.send(error.message if error.hint else "no hint")
    finally:
        pipe.close()


@pytest.mark.parametrize(
    ("mode", "exists", "message"),
    [(0o555, False, "read-only"), (0o555, True, "opened"), (0o000, True, "Permission denied")],
)
def test_a_folder_of_others(mode, exists, message):
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        folder = Path(outer) / "kept"
        folder.mkdir()
        if exists:
            Store.open(f"{folder}/x.db").close()
        folder.chmod(mode)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_open_without_rights, args=(f"{folder}/x.db", sender)
        )
        process.start()
        sender.close()
        try:
            assert message in receiver.recv()
        finally:
            process.join()
            folder.chmod(0o700)


@pytest.mark.parametrize(
    "url", ["", "  ", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "://"]
)
def test_urls_that_name_nothing(url):
    assert refused(url).message


def test_an_unknown_kind_of_database():
    error = refused("oracle9://host/name")
    assert "not supported" in error.message and "postgresql" in error.hint


def test_a_missing_driver_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def without_psycopg(name, *args, **options):
        if name.startswith("psycopg"):
            raise ModuleNotFoundError("No module named 'psycopg'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_psycopg)
    error = refused("postgresql://ana:secret@host/name")
    assert "driver is not installed" in error.message and "wgtune[postgresql]" in error.hint
    assert "secret" not in error.message


def test_postgresql_means_the_driver_that_the_package_names():
    assert parse_url("postgresql://host/name").drivername == "postgresql+psycopg"
    assert parse_url("postgresql+pg8000://host/name").drivername == "postgresql+pg8000"


def _open(url, barrier):
    barrier.wait()
    Store.open(url).close()


def test_many_processes_may_open_a_new_database_at_once(tmp_path):
    """Again and again: of processes that turn the log of a new file on, SQLite refuses some in a third of all cases."""
    context = multiprocessing.get_context("fork")
    for number in range(20):
        url = str(tmp_path / f"{number}.db")
        barrier = context.Barrier(4)
        processes = [context.Process(target=_open, args=(url, barrier)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        assert admin.check(url) == []


def test_info_counts_and_changes_nothing(tmp_path):
    path = tmp_path / "x.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        baseline(store, session_id, MATMUL, ok(1e-3))
        measure(store, session_id, MATMUL, failed(TrialState.RUN_TIMEOUT))
        store.end_session(session_id, SessionOutcome.COMPLETED)
    found = admin.info(str(path))
    assert (found.path, found.revision) == (path, found.latest)
    assert [model.name for model in found.models] == ["demo"] and found.workloads == 5
    assert found.sessions == {SessionOutcome.COMPLETED: 1}
    assert found.trials == {LLVMPIPE.key: {TrialState.OK: 1, TrialState.RUN_TIMEOUT: 1}}
    assert found.size_bytes >= path.stat().st_size > 0


def test_info_and_check_of_an_empty_database(tmp_path):
    (tmp_path / "x.db").touch()
    found = admin.info(str(tmp_path / "x.db"))
    assert (found.revision, found.models, found.trials) == (None, [], {})
    assert admin.check(str(tmp_path / "x.db")) == [f"schema revision none is not {found.latest}: wgtune db upgrade"]
    assert admin.upgrade(str(tmp_path / "x.db")).before is None
    done = admin.upgrade(str(tmp_path / "x.db"))
    assert done.before == done.after == found.latest
    assert admin.check(str(tmp_path / "x.db")) == []


def test_check_finds_what_cannot_be(tmp_path):
    path = tmp_path / "x.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        store.begin_trial(start(session_id, MATMUL))
        store.end_trial(store.begin_trial(start(session_id, MATMUL)), ok(1e-3))
    assert admin.check(str(path)) == []
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE session SET outcome = 'completed'")
        connection.execute("UPDATE trial SET workload_id = 999 WHERE state = 'ok'")
    assert admin.check(str(path)) == [
        "trial 2 refers to a workload that is not there",
        "trial 1 is running, but its session 1 has ended",
    ]


def test_a_database_that_another_process_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "x.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert store.best(LLVMPIPE.key, [MATMUL.id]) == {}, "readers do not wait"
        with pytest.raises(DatabaseError, match="locked") as caught:
            store.begin_trial(start(session_id, MATMUL))
        assert "another process" in caught.value.hint
        holder.execute("ROLLBACK")
        store.begin_trial(start(session_id, MATMUL))
        holder.close()
