"""Read-only opening: sources of merges, comparisons and releases never change, whatever their schema."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Engine

from ..support.errors import DatabaseError
from .schema.engine import check_file, display, make_engine, parse_url, reading_engine, sqlite_path, translated
from .schema.migrate import current_revision, known_revisions, upgrade
from .sql_reader import SqlReader


@contextmanager
def opened(url: str | None) -> Iterator[SqlReader]:
    """Open the database at ``url`` for reading, in this program's schema; upgrade an older file in a temporary copy.

    Raises:
        DatabaseError: as `Store.open`; an older database on a server, which cannot be copied aside; or a file without a
            write-ahead log that was written to while it was read.
    """
    where = parse_url(url)
    path, name = sqlite_path(where), display(where)
    if path is not None:
        check_file(path, create=False)
    before = None if path is None else _version(path)
    engine = reading_engine(where)
    try:
        if path is not None and _older(engine, name):
            with _upgraded(path, name) as copy:
                yield copy
        else:
            if path is None and _older(engine, name):
                raise DatabaseError(f"{name} has an older schema", f"wgtune db upgrade --db {name}")
            yield SqlReader(engine, name)
        # Without a log beside it the file is read as if it could not change.
        if path is not None and engine.url.query.get("immutable") and _version(path) != before:
            raise DatabaseError(f"{name} was written to while it was read", "run the command again")
    finally:
        engine.dispose()


def _older(engine: Engine, name: str) -> bool:
    with translated(name), engine.connect() as connection:
        return current_revision(connection, name) != known_revisions()[-1]


@contextmanager
def _upgraded(path: Path, name: str) -> Iterator[SqlReader]:
    with tempfile.TemporaryDirectory(prefix="wgtune-") as folder:
        copy = Path(folder) / "copy.db"
        with (
            translated(name),
            closing(reading_engine(URL.create("sqlite", database=str(path))).raw_connection()) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.driver_connection.backup(target)  # type: ignore[union-attr]
        engine = make_engine(URL.create("sqlite", database=str(copy)))
        try:
            with translated(name):
                upgrade(engine, name)
            yield SqlReader(engine, name)
        finally:
            engine.dispose()


def _version(path: Path) -> tuple[int, int]:
    kept = path.stat()
    return kept.st_size, kept.st_mtime_ns
