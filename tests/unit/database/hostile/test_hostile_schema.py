"""A file that someone sent may hold code: triggers, views, computed columns. None of it runs."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
from folders import DATABASES
from hostile import change, make
from sqlalchemy.exc import DBAPIError

from wgtune.database.exchange import admin
from wgtune.database.schema.engine import make_engine, parse_url
from wgtune.database.store import Store
from wgtune.support.errors import DatabaseError


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "x.db")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON session BEGIN DELETE FROM trial; END",
        "CREATE TRIGGER t BEFORE UPDATE ON trial BEGIN SELECT RAISE(IGNORE); END",
        "CREATE VIEW all_trials AS SELECT * FROM trial",
        "ALTER TABLE trial RENAME TO trials; CREATE VIEW trial AS SELECT * FROM trials",
        "ALTER TABLE alias RENAME TO aliases; CREATE VIEW alias AS SELECT zeroblob(1000000000) AS level",
        "CREATE VIRTUAL TABLE t USING fts5(text)",
        "CREATE VIRTUAL TABLE t USING rtree(id, a, b)",
        "ALTER TABLE trial ADD COLUMN more INTEGER AS (abs(-9223372036854775808))",
        "ALTER TABLE trial ADD COLUMN more TEXT NOT NULL DEFAULT 'x'",
        "ALTER TABLE trial DROP COLUMN rtol",
        "DROP TABLE replay",
        "DROP TABLE alias; CREATE TABLE alias (level, name, vendor, architecture, model, note, created AS (9))",
    ],
)
def test_what_wgtune_does_not_make_is_refused_and_stays(path, statement):
    change(path, statement)
    before = schema(path)
    for opening in (lambda: Store.open(str(path)), lambda: admin.info(str(path)), lambda: admin.check(str(path))):
        with pytest.raises(DatabaseError) as caught:
            opening()
        assert caught.value.hint
    with pytest.raises(DatabaseError):
        admin.upgrade(str(path))
    assert schema(path) == before


def test_an_older_file_is_looked_at_before_it_is_upgraded(tmp_path):
    path = tmp_path / "old.db"
    change(path, (DATABASES / "revision_0001.sql").read_text())
    change(path, "CREATE TRIGGER t AFTER UPDATE ON wgtune_revision BEGIN DELETE FROM schedule; END")
    with pytest.raises(DatabaseError, match="trigger"):
        Store.open(str(path))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM schedule").fetchone() == (1,)


def test_a_trigger_that_calls_itself_a_table(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON session BEGIN DELETE FROM trial; END")
    connection.execute("PRAGMA writable_schema = ON")
    with connection:
        connection.execute("UPDATE sqlite_schema SET type = 'table' WHERE name = 't'")
    connection.close()
    with pytest.raises(DatabaseError):
        Store.open(str(path))


def test_a_schema_that_cannot_be_parsed(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    with connection:
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE trial (((' WHERE name = 'trial'")
    connection.close()
    with pytest.raises(DatabaseError, match="malformed"):
        Store.open(str(path))


def test_what_users_add_beside_our_tables_stays(path):
    change(path, "CREATE TABLE notes (text TEXT)", "CREATE INDEX mine ON trial (timer)", "ANALYZE")
    assert admin.check(str(path)) == []
    with Store.open(str(path)) as store:
        assert store.devices()


def test_connections_trust_no_schema(path):
    engine = make_engine(parse_url(str(path)))
    with engine.connect() as connection:
        for name, expected in (("trusted_schema", 0), ("cell_size_check", 1), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar() == expected
        with pytest.raises(DBAPIError, match="not authorized"):
            connection.exec_driver_sql("SELECT load_extension('libm.so.6')")
        if sys.version_info >= (3, 12):
            raw = connection.connection.dbapi_connection
            assert raw.getconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)
            assert not raw.getconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER)
    engine.dispose()


def test_a_check_that_runs_a_dangerous_function_does_not(path, tmp_path):
    """CHECK constraints stay in the file's own text, so that they run with each insertion."""
    change(path, "DROP TABLE alias", "CREATE TABLE alias (level, name, vendor, architecture, model, note, created)")
    other = Path(shutil.copy(path, tmp_path / "y.db"))
    connection = sqlite3.connect(other)
    connection.execute("PRAGMA writable_schema = ON")
    text = "CREATE TABLE alias (level, name, vendor, architecture, model, note, created, CHECK (load_extension(name)))"
    with connection:
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'alias'", (text,))
    connection.close()
    with Store.open(str(other)) as store, pytest.raises(DatabaseError), store.writing() as writing:
        writing.exec_driver_sql("INSERT INTO alias VALUES ('model', 'libm.so.6', '', '', '', '', '')")


def schema(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
    finally:
        connection.close()
