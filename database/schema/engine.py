"""Database URLs to SQLAlchemy engines, and drivers' exceptions to `DatabaseError`."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, StatementError
from sqlalchemy.pool import QueuePool

from ...support.errors import DatabaseError
from ...support.paths import default_database
from .columns import BadValue, sqlite_types
from .filesystem import network_filesystem

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another process's transaction. Ours take milliseconds; a migration may take longer."""

_RETRY_S = 0.005, 0.03
"""Between two attempts at what SQLite does not wait for by itself."""

CONNECT_TIMEOUT_S = 10
"""How long a database server may take to answer."""

SQLITE_HEADER = b"SQLite format 3\0"
"""The first 16 bytes of every SQLite file (SQLite file format, section 1.3)."""

_WAL_VERSION = 2
"""Byte 18 of a SQLite file whose changes go to a write-ahead log; 1 where they go to a rollback journal."""

RELEASE_SUFFIX = ".wgtune.db"
"""How the names of release files end. Nothing is ever written to one, not even a journal mode."""

_WRITES = "wgtune_writes"
_DURABLE = "wgtune_durable"


def connect(url: str | None, *, create: bool) -> tuple[Engine, str, Path | None]:
    """Return an engine for the database at ``url``, how messages call it, and its file where it is SQLite's.

    ``url`` is a SQLAlchemy URL, the path of a SQLite file, or None for the user's own database, whose folder is made
    with ``create``. Nothing is read from the database yet. Raises DatabaseError where something is wrong from the
    outside.
    """
    where = parse_url(url)
    path = sqlite_path(where)
    if path is not None:
        if url is None and create:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DatabaseError(
                    f"the folder {path.parent} cannot be made: {error.strerror}", "name another with WGTUNE_DATA"
                ) from None
        check_file(path, create=create)
    return make_engine(where), display(where), path


def parse_url(text: str | None) -> URL:
    """Return the URL of a database: ``None`` is the user's own, a plain path is a SQLite file. Raises DatabaseError."""
    if text is None:
        text = default_database()
    if not text.strip():
        raise DatabaseError("the database's name is empty", "give a file or a URL: --db tuned.db")
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise DatabaseError(
            f"{text!r} is not a database URL: {error}",
            "use a file name, sqlite:////full/path.db, or postgresql://user@host/name",
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and (url.database in (None, "", ":memory:") or url.query):
        raise DatabaseError(
            f"{text!r} does not name a file: a database in memory would be lost", "use sqlite:////full/path.db"
        )
    return url


def display(url: URL) -> str:
    """Return the name for messages: the path of a SQLite file, otherwise the URL without its password."""
    return str(sqlite_path(url) or url.render_as_string(hide_password=True))


def sqlite_path(url: URL) -> Path | None:
    """Return the file of a SQLite database, None for any other."""
    if url.get_backend_name() != "sqlite":
        return None
    return Path(url.database or "").expanduser()


def real_path(path: Path) -> Path:
    """Return the path with symbolic links resolved; unchanged where that fails, as for links in a circle."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def check_file(path: Path, *, create: bool) -> None:
    """Raise DatabaseError where ``path`` cannot become, or is not, a SQLite database."""
    if "\0" in str(path):
        raise DatabaseError(f"{str(path)!r} is not a file name", "name one with --db or WGTUNE_DB")
    try:
        kind = path.stat().st_mode if path.exists() else None
        if kind is None:
            _check_new_file(path, create)
            return
        if stat.S_ISDIR(kind):
            raise DatabaseError(f"{path} is a folder, not a database", f"name a file: {path / 'wgtune.db'}")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for its other end
            raise DatabaseError(f"{path} is a device or a pipe, not a database", "name a file with --db or WGTUNE_DB")
        head = _head(path)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be read: {error.strerror}", "check its owner and permissions") from None
    if head and not head.startswith(SQLITE_HEADER):
        raise DatabaseError(f"{path} is not a SQLite database", "name another file with --db or WGTUNE_DB")
    if _is_cut(path, head):
        raise DatabaseError(f"{path} is cut short: it ends within a page", "restore a copy, or copy it again")
    if not head and (log := log_size(path)):
        # SQLite would throw the log away, and with it what it holds.
        raise DatabaseError(
            f"{path} is empty, but its write-ahead log holds {log:,} bytes: a copy was cut short",
            f"copy both again, or move {path.name}-wal away to begin anew",
        )


def is_writable(path: Path) -> bool:
    """Return whether this process may change the SQLite file, which takes making files beside it too."""
    if not path.exists():
        return True
    return not is_release(path) and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def is_release(path: Path) -> bool:
    """Return whether the file is a release, by its name."""
    return path.name.endswith(RELEASE_SUFFIX)


def is_read_only(engine: Engine) -> bool:
    """Return whether the engine opens a SQLite file that this process may not change."""
    return engine.url.query.get("mode") == "ro"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEADER) + 4)


def _is_cut(path: Path, head: bytes) -> bool:
    """Return whether the file ends within a page, which SQLite would read as if zeros had been written there."""
    page = int.from_bytes(head[len(SQLITE_HEADER) : len(SQLITE_HEADER) + 2], "big")
    page = 65536 if page == 1 else page  # SQLite file format, section 1.3.2
    if page == 0 or log_size(path) or path.with_name(path.name + "-journal").exists():
        return False
    return path.stat().st_size % page != 0


def log_size(path: Path) -> int:
    """Bytes in the write-ahead log beside a SQLite file."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:  # at any moment: whoever closes the file last takes it away
        return 0


def _read_only(path: Path) -> URL:
    """Return the URL that opens a file which cannot be changed.

    SQLite reads a database with a write-ahead log only where it may keep an index of the log beside it. Without a log
    there is nothing to index, which it must be told. Raises DatabaseError where there is a log.
    """
    url = URL.create("sqlite", database=path.absolute().as_uri(), query={"mode": "ro", "uri": "true"})
    head = _head(path)
    if len(head) <= len(SQLITE_HEADER) + 2 or head[len(SQLITE_HEADER) + 2] != _WAL_VERSION:
        return url.update_query_dict({"immutable": "1"}) if is_release(path) else url
    if not log_size(path):
        return url.update_query_dict({"immutable": "1"})
    if path.with_name(path.name + "-shm").exists() or os.access(path.parent, os.W_OK):
        return url
    raise DatabaseError(
        f"{path} cannot be changed, and what was written last still lies in {path.name}-wal",
        f"copy both to a folder of yours: cp {path} {path}-wal .",
    )


def _check_new_file(path: Path, create: bool) -> None:
    folder = path.parent
    if not create:
        raise DatabaseError(f"there is no database at {path}", "wgtune tune makes one; --db or WGTUNE_DB names another")
    if not folder.is_dir():
        raise DatabaseError(f"{folder} is not a folder, so {path.name} cannot be in it", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise DatabaseError(f"the folder {folder} is read-only", "name a file elsewhere with --db or WGTUNE_DB")


def make_engine(url: URL) -> Engine:
    """Return an engine on which every transaction is explicit.

    Raises DatabaseError where the dialect or its driver is missing.
    """
    path = sqlite_path(url)
    try:
        if path is not None:
            engine = _sqlite_engine(path)
        else:
            engine = create_engine(url, pool_pre_ping=True, connect_args=_server_arguments(url))
    except NoSuchModuleError:
        raise DatabaseError(
            f"{display(url)}: databases of the kind {url.drivername!r} are not supported", "use sqlite or postgresql"
        ) from None
    except ImportError as error:
        hint = "pip install 'wgtune[postgresql]'" if url.get_backend_name() == "postgresql" else ""
        raise DatabaseError(f"{display(url)}: the driver is not installed ({error})", hint) from None
    return engine


def reading_engine(url: URL) -> Engine:
    """Return an engine that only reads. Raises as `make_engine`."""
    path = sqlite_path(url)
    if path is None:
        engine = make_engine(url)
        return engine.execution_options(postgresql_readonly=True, isolation_level="REPEATABLE READ")
    return _with_sqlite_events(create_engine(_read_only(path), connect_args={"timeout": BUSY_TIMEOUT_S}), _prepare)


def _server_arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() != "postgresql" or "connect_timeout" in url.query:
        return {}
    return {"connect_timeout": CONNECT_TIMEOUT_S}


def _sqlite_engine(path: Path) -> Engine:
    if is_writable(path):
        url, prepare = URL.create("sqlite", database=str(path)), _prepare_writer
        if network_filesystem(path):
            prepare = _prepare_network_writer
    else:
        url, prepare = _read_only(path), _prepare
    return _with_sqlite_events(create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}), prepare)


def memory_engine() -> Engine:
    """Return an engine for a new SQLite database in memory.

    It is the one connection's own, for which threads wait as long as for another process's transaction.
    """
    engine = create_engine(
        "sqlite://",
        connect_args={"check_same_thread": False},
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
    )
    return _with_sqlite_events(engine, _prepare)


def _with_sqlite_events(engine: Engine, prepare: Callable[[sqlite3.Connection, object], None]) -> Engine:
    engine.dialect.colspecs = {**engine.dialect.colspecs, **sqlite_types()}
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def writing(engine: Engine, *, durable: bool = False) -> Engine:
    """Return the same engine for transactions that write; with ``durable`` they are on the disk when they are over.

    On SQLite these take the write lock when they begin: one that read first and wants to write later fails at once,
    whatever the busy timeout, when another process wrote in between. PostgreSQL's transactions are always durable.
    """
    return engine.execution_options(**{_WRITES: True, _DURABLE: durable})


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn a database driver's exceptions into `DatabaseError`; ``name`` is the database's name in messages."""
    try:
        yield
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise DatabaseError(f"{name}: {reason}", _hint(reason)) from error
    except StatementError as error:
        # SQLAlchemy's wrapper of what a column's type raised.
        if isinstance(error.orig, BadValue):
            raise DatabaseError(f"{name}: {error.orig}") from error
        raise
    except (BadValue, UnicodeDecodeError) as error:  # the latter also where SQLite's own message quotes damage
        raise DatabaseError(f"{name}: a value cannot be read back: {error}", _hint("malformed")) from error
    except UnicodeEncodeError as error:
        raise DatabaseError(
            f"{name}: {error.object[:60]!r} is not valid text: it has half of a surrogate pair"
        ) from error


def _hint(reason: str) -> str:
    if "malformed" in reason or "not a database" in reason:
        return "the file is damaged: restore a copy; `wgtune db check` says what is wrong"
    if "locked" in reason:
        return "another process has held the database for long: end it, then run the command again"
    if "connection" in reason:
        return "check that the server is running and that the URL names its host, port, user and database"
    if "full" in reason:
        return "make room on the disk, then run the command again"
    if "I/O error" in reason:
        return "the disk failed or took no more; make room or name another with --db, then run the command again"
    if "readonly" in reason or "unable to open" in reason:
        return "check the permissions of the file and of its folder, or name another with --db"
    return "`wgtune db check` says whether the database is whole"


def _prepare(connection: sqlite3.Connection, record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, and never before DDL: a killed migration would leave half
    # of it.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    # The file may come from a stranger: what its schema calls runs without reach, and damage is looked for
    # (https://sqlite.org/security.html).
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)


def _prepare_writer(connection: sqlite3.Connection, record: object) -> None:
    _prepare(connection, record)
    # With a write-ahead log readers never wait for the tuner, nor it for them.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                break
            # Of several processes that turn a new file's log on, SQLite refuses all but one without any wait.
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(*_RETRY_S))
    # Some filesystems lend no shared memory.
    connection.execute("PRAGMA journal_mode = DELETE")


def _prepare_network_writer(connection: sqlite3.Connection, record: object) -> None:
    _prepare(connection, record)
    # A write-ahead log needs memory that all its readers share, which two machines do not.
    connection.execute("PRAGMA journal_mode = DELETE")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get(_WRITES, False):
        connection.exec_driver_sql("BEGIN")
        return
    # A kill loses nothing committed at any setting. FULL also survives the power button, which is what a GPU driver
    # that hangs the machine leads to, at the price of waiting for the disk.
    connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get(_DURABLE) else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
