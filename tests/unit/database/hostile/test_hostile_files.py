"""Files that are no database of ours, and places where one cannot be written: words, never a hang, nothing lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from folders import DATABASES
from hostile import change, make, read_everything, without_rights
from synthetic_store import HOST, LLVMPIPE, MATMUL, add_demo, measure, ok, session
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.exchange import admin
from wgtune.database.schema import engine, filesystem
from wgtune.database.store import Store
from wgtune.reports.html.page import write_page
from wgtune.support.errors import DatabaseError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "x.db")


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copy(whole, tmp_path / "x.db"))


def refused(path) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        Store.open(str(path)).close()
    assert caught.value.hint
    with pytest.raises(DatabaseError):
        admin.check(str(path))
    return caught.value


# What is not a database


def test_a_text_file_stays_as_it_is(tmp_path):
    path = tmp_path / "notes.db"
    path.write_text("dear diary")
    assert "not a SQLite database" in refused(path).message
    assert path.read_text() == "dear diary" and list(tmp_path.iterdir()) == [path]


def test_another_programs_database_stays_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    change(path, "CREATE TABLE trial (id INTEGER)", "CREATE TABLE photos (id INTEGER)")
    assert "another program's database" in refused(path).message
    assert sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_schema").fetchone() == (2,)


def test_a_folder(tmp_path):
    assert "is a folder" in refused(tmp_path).message


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.db")
    signal.alarm(20)
    try:
        assert "pipe" in refused(tmp_path / "x.db").message
    finally:
        signal.alarm(0)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/full"])
def test_a_device(path):
    assert "device" in refused(path).message


def test_a_name_that_no_file_has():
    assert "not a file name" in refused("a\0b").message
    assert refused("x" * 5000).message


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "x.db").symlink_to(tmp_path / "gone" / "x.db")
    assert refused(tmp_path / "x.db").message
    (tmp_path / "y.db").symlink_to("y.db")
    assert refused(tmp_path / "y.db").message


def test_an_empty_file_becomes_a_database(tmp_path):
    (tmp_path / "x.db").touch()
    Store.open(str(tmp_path / "x.db")).close()
    assert admin.check(str(tmp_path / "x.db")) == []


# What lies beside the file


def test_an_empty_file_does_not_cost_the_log_beside_it(copy):
    log = copy.with_name("x.db-wal")
    log.write_bytes(b"what was written last")
    copy.write_bytes(b"")
    assert "copy was cut short" in refused(copy).message
    assert log.read_bytes() == b"what was written last"


def test_leftovers_of_another_databases_log_change_nothing(copy, whole):
    before = read_everything(copy)
    copy.with_name("x.db-wal").write_bytes(os.urandom(8192))
    copy.with_name("x.db-shm").write_bytes(os.urandom(32768))
    assert read_everything(copy) == before
    assert admin.check(str(copy)) == []


def test_a_log_left_by_a_kill_is_read(tmp_path):
    pid = os.fork()
    if pid == 0:
        store = Store.open(str(tmp_path / "x.db"))
        add_demo(store)
        measure(store, store.begin_session(session()), MATMUL, ok(1e-3))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (tmp_path / "x.db-wal").stat().st_size > 0
    with Store.open(str(tmp_path / "x.db"), create=False) as store:
        assert store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].latency_s == 1e-3


# Versions, and who else is there


def test_a_database_of_a_newer_wgtune(copy):
    change(copy, "UPDATE wgtune_revision SET version_num = '9999'")
    error = refused(copy)
    assert "newer wgtune" in error.message and "pip install --upgrade" in error.hint


@pytest.mark.parametrize("rows", ["DELETE FROM wgtune_revision", "INSERT INTO wgtune_revision VALUES ('0001')"])
def test_a_version_that_nobody_knows(copy, rows):
    change(copy, rows)
    assert "wgtune_revision" in refused(copy).message


def test_a_locked_database(copy, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.2)
    other = sqlite3.connect(copy, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(str(copy), create=False) as store:
        assert store.devices()[0] == LLVMPIPE
        with pytest.raises(DatabaseError, match="locked") as caught:
            store.begin_session(session())
        assert "another process" in caught.value.hint
        other.execute("ROLLBACK")
        store.begin_session(session())


def test_an_exclusively_locked_database(copy, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.2)
    other = sqlite3.connect(copy, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseError, match="locked") as caught:
        Store.open(str(copy))
    assert "another process" in caught.value.hint
    other.close()


# Places that take no writing


@contextlib.contextmanager
def folder_of_others(whole, mode):
    """The database in a folder that everybody may enter, with that mode; tmp_path is closed to others."""
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        folder = Path(outer) / "kept"
        folder.mkdir()
        path = folder / "x.db"
        shutil.copy(whole, path)
        path.chmod(0o444)
        folder.chmod(mode)
        try:
            yield path
        finally:
            folder.chmod(0o700)


@pytest.mark.parametrize("rollback", [False, True])
def test_reading_needs_no_right_to_write(whole, tmp_path, rollback):
    # Modules that are imported late must be there before the child gives up its rights.
    read_everything(whole)
    admin.check(str(whole))
    source = Path(shutil.copy(whole, tmp_path / "x.db"))
    if rollback:
        change(source, "PRAGMA journal_mode = DELETE")
    expected = read_everything(source)
    with folder_of_others(source, 0o555) as path:
        names = sorted(path.parent.iterdir())
        assert without_rights(lambda: str(read_everything(path) == expected)) == "True"
        assert without_rights(lambda: str(admin.check(str(path)))) == "[]"
        assert without_rights(lambda: admin.info(str(path)).revision or "") == admin.info(str(whole)).revision
        assert sorted(path.parent.iterdir()) == names

        def write() -> str:
            with Store.open(str(path), create=False) as store:
                store.begin_session(session())
            return "written"

        answer = without_rights(write)
        assert "readonly" in answer and "permissions" in answer


def test_a_log_that_cannot_be_indexed_is_not_passed_over(whole):
    with folder_of_others(whole, 0o755) as path:
        pid = os.fork()
        if pid == 0:
            path.chmod(0o644)
            with contextlib.suppress(BaseException):
                Store.open(str(path)).begin_session(session())
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        path.with_name("x.db-shm").unlink()
        path.chmod(0o444)
        path.parent.chmod(0o555)
        answer = without_rights(lambda: str(read_everything(path)))
        assert "x.db-wal" in answer and "cp " in answer


def test_an_older_database_that_cannot_be_upgraded(tmp_path):
    path = tmp_path / "old.db"
    dump = DATABASES / "revision_0001.sql"
    connection = sqlite3.connect(path)
    connection.executescript(dump.read_text())
    connection.close()
    with folder_of_others(path, 0o555) as kept:
        answer = without_rights(lambda: str(read_everything(kept)))
        assert "0001" in answer and "read-only" in answer and "cp " in answer


# A network home


def journal_mode(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def test_a_network_home_gets_no_write_ahead_log(tmp_path, monkeypatch):
    path = tmp_path / "x.db"
    Store.open(str(path)).close()
    assert journal_mode(path) == "wal"
    monkeypatch.setattr(engine, "network_filesystem", lambda path: "nfs4")
    with Store.open(str(path)) as store, Store.open(str(path)) as other:
        add_demo(store)
        measure(store, store.begin_session(session()), MATMUL, ok(1e-3))
        assert other.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].latency_s == 1e-3
        assert journal_mode(path) == "delete"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.db"]
    assert admin.check(str(path)) == []


def test_mounts_tell_where_a_file_lies(monkeypatch, tmp_path):
    import psutil

    home = tmp_path / "home"
    (home / "ana" / "local").mkdir(parents=True)
    mounts = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint=str(home), fstype="nfs4"),
        SimpleNamespace(mountpoint=str(home / "ana" / "local"), fstype="ext4"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert filesystem.network_filesystem(home / "ana" / "x.db") == "nfs4"
    assert filesystem.network_filesystem(home / "ana" / "local" / "x.db") is None
    assert filesystem.network_filesystem(tmp_path / "homes.db") is None
    (tmp_path / "link").symlink_to(home)
    assert filesystem.network_filesystem(tmp_path / "link" / "x.db") == "nfs4"


# A full disk


def test_a_full_disk_ends_in_words_and_keeps_what_was_committed(tmp_path):
    path = tmp_path / "x.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        session_id = store.begin_session(session())

    def fill_up() -> str:
        # A process may not make files larger than this: as a quota, or a disk that is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
        with Store.open(str(path)) as store:
            for i in range(10_000):
                try:
                    measure(store, session_id, MATMUL, ok(1e-3), f"{i} {os.urandom(2000).hex()}")
                except DatabaseError as error:
                    return f"{i} {error.message} → {error.hint}"
        return "0 never full"

    count, words = in_a_process(fill_up).split(" ", 1)
    assert int(count) > 5 and "make room" in words
    with Store.open(str(path)) as store:
        assert len(store.tried(LLVMPIPE.key, MATMUL.id)) == int(count)
        store.abandon_dead(HOST)
        measure(store, session_id, MATMUL, ok(1e-3), "after room was made")
    assert [problem for problem in admin.check(str(path)) if "running" not in problem] == []


def in_a_process(action):
    """In a process of its own, as the same user."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, action().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    return os.read(reader, 10_000).decode()


def test_a_page_on_a_full_disk(whole):
    with Store.open(str(whole)) as store, pytest.raises(Exception, match="cannot be written") as caught:
        write_page(Path("/dev/full"), store, "c" * 64, LLVMPIPE.key, 20)
    assert caught.value.hint


# Servers, and what the environment names


def test_a_server_that_is_not_there():
    error = refused("postgresql://ana:secret@127.0.0.1:1/wgtune")
    assert "secret" not in error.message and "***" in error.message and "server is running" in error.hint


@pytest.mark.parametrize(
    "url", ["postgresql://", "postgresql://h:port/x", "postgresql://[::1/x", "sqlite:////nowhere/x"]
)
def test_broken_urls(url):
    with pytest.raises(DatabaseError) as caught:
        Store.open(url)
    assert caught.value.message


@pytest.mark.parametrize("value", ["/nowhere/at/all.db", "postgresql://x:y@127.0.0.1:1/z", "oracle://x", "/dev/null"])
@pytest.mark.parametrize("command", [["db", "info"], ["db", "check"], ["report", "coverage"]])
def test_the_command_line_says_in_words_what_the_environment_names(value, command, monkeypatch):
    monkeypatch.setenv("WGTUNE_DB", value)
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, (DatabaseError, SystemExit)), result.exception
