"""From a database URL to a SQLAlchemy engine, and from a driver's exceptions to `DatabaseError`."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from ..errors import DatabaseError
from ..paths import default_database

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another process's transaction. Ours take milliseconds; a migration may take longer."""

SQLITE_HEADER = b"SQLite format 3\0"
"""The first 16 bytes of every SQLite file (SQLite file format, section 1.3)."""

_WRITES = "wgtune_writes"
_DURABLE = "wgtune_durable"


def connect(url: str | None, *, create: bool) -> tuple[Engine, str, Path | None]:
    """An engine for the database at ``url``, how messages call it, and its file where it is SQLite's.

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
    """The URL of a database: ``None`` is the user's own, a plain path is a SQLite file. Raises DatabaseError."""
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
            f"{text!r} does not name a file: what is learned must outlive the program", "use sqlite:////full/path.db"
        )
    return url


def display(url: URL) -> str:
    """How messages name the database: a SQLite file by its path, any other by its URL without the password."""
    return str(sqlite_path(url) or url.render_as_string(hide_password=True))


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database, None for any other."""
    if url.get_backend_name() != "sqlite":
        return None
    return Path(url.database or "").expanduser()


def check_file(path: Path, *, create: bool) -> None:
    """Raises DatabaseError where ``path`` cannot become, or is not, a SQLite database that this process can write."""
    try:
        if not path.exists():
            _check_new_file(path, create)
            return
        if path.is_dir():
            raise DatabaseError(f"{path} is a folder, not a database", f"name a file: {path / 'wgtune.db'}")
        with path.open("rb") as file:
            head = file.read(len(SQLITE_HEADER))
    except OSError as error:
        raise DatabaseError(f"{path} cannot be read: {error.strerror}", "check its owner and permissions") from None
    if head and head != SQLITE_HEADER:
        raise DatabaseError(f"{path} is not a SQLite database", "name another file with --db or WGTUNE_DB")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        # Even a reader needs to write there: SQLite keeps the write-ahead log and its index beside the file.
        raise DatabaseError(
            f"{path}, or the folder that it is in, is read-only", f"copy it to a folder of yours: cp {path} ."
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
    """An engine whose every transaction is explicit.

    Raises DatabaseError where the dialect or its driver is missing.
    """
    path = sqlite_path(url)
    try:
        if path is not None:
            engine = create_engine(url.set(database=str(path)), connect_args={"timeout": BUSY_TIMEOUT_S})
        else:
            engine = create_engine(url, pool_pre_ping=True)
    except NoSuchModuleError:
        raise DatabaseError(
            f"{display(url)}: databases of the kind {url.drivername!r} are not supported", "use sqlite or postgresql"
        ) from None
    except ImportError as error:
        hint = "pip install 'wgtune[postgresql]'" if url.get_backend_name() == "postgresql" else ""
        raise DatabaseError(f"{display(url)}: the driver is not installed ({error})", hint) from None
    if path is not None:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def writing(engine: Engine, *, durable: bool = False) -> Engine:
    """The same engine for transactions that write; with ``durable`` they are on the disk when they are over.

    On SQLite these take the write lock when they begin: one that read first and wants to write later fails at once,
    whatever the busy timeout, when another process wrote in between. PostgreSQL's transactions are always durable.
    """
    return engine.execution_options(**{_WRITES: True, _DURABLE: durable})


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turns a database driver's exceptions into `DatabaseError`; ``name`` is how messages call the database."""
    try:
        yield
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise DatabaseError(f"{name}: {reason}", _hint(reason)) from error
    except (zlib.error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatabaseError(f"{name}: a value cannot be read back ({error})", _hint("malformed")) from error


def _hint(reason: str) -> str:
    if "malformed" in reason or "not a database" in reason:
        return "the file is damaged: restore a copy; `wgtune db check` says what is wrong"
    if "locked" in reason:
        return "another process has held the database for long: end it, then run the command again"
    if "connection" in reason:
        return "check that the server is running and that the URL names its host, port, user and database"
    if "full" in reason:
        return "make room on the disk, then run the command again"
    if "readonly" in reason or "unable to open" in reason:
        return "check the permissions of the file and of its folder, or name another with --db"
    return "`wgtune db check` says whether the database is whole"


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    # Python's sqlite3 would begin transactions by itself, and never before DDL: a killed migration would leave half
    # of it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # With a write-ahead log readers never wait for the tuner, nor it for them.
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get(_WRITES, False):
        connection.exec_driver_sql("BEGIN")
        return
    # A kill loses nothing committed at any setting. FULL also survives the power button, which is what a GPU driver
    # that hangs the machine leads to, at the price of waiting for the disk.
    connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get(_DURABLE) else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
