"""The schema revision of a database, and its upgrade to this program's."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from ...support.errors import DatabaseError
from .engine import is_read_only, writing
from .untrusted_file import check_columns, check_objects

VERSION_TABLE = "wgtune_revision"
"""Alembic's version table under our own name: its presence says whose database this is."""

_MIGRATION_LOCK = 0x77677475
"""The key of PostgreSQL's advisory lock in which wgtune's processes take turns to migrate: ASCII for "wgtu"."""

MIGRATIONS = Path(__file__).with_name("migrations")


def known_revisions() -> list[str]:
    """Return every revision that this program knows, oldest first."""
    # The files' names, so that opening a database that is up to date need not import Alembic.
    return sorted(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def current_revision(connection: Connection, name: str) -> str | None:
    """Return the database's revision, None for an empty database; ``name`` is what messages call it.

    Raises DatabaseError for another program's database, for one made by a newer wgtune, and for one that holds what
    wgtune never makes: triggers, views, other columns.
    """
    check_objects(connection, name)
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if VERSION_TABLE not in tables:
        raise DatabaseError(
            f"{name} is another program's database: it holds {_some(tables)}",
            "name another with --db or WGTUNE_DB; wgtune makes a new file where there is none",
        )
    rows = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()
    if len(rows) != 1:
        raise DatabaseError(f"{name}: the table {VERSION_TABLE} has {len(rows)} rows instead of 1", "restore a copy")
    known = known_revisions()
    if rows[0] not in known:
        raise DatabaseError(
            f"{name} has schema revision {rows[0]}, written by a newer wgtune; this one knows up to {known[-1]}",
            "pip install --upgrade wgtune, or name another database with --db",
        )
    if rows[0] == known[-1]:
        check_columns(connection, name)
    return str(rows[0])


def upgrade(engine: Engine, name: str) -> tuple[str | None, str]:
    """Upgrade the database in one transaction, and return the revisions before and after.

    An empty database gets all tables. Raises DatabaseError as `current_revision` does.
    """
    head = known_revisions()[-1]
    with engine.connect() as connection:
        before = current_revision(connection, name)
    if before == head:
        return before, head
    if is_read_only(engine):
        raise DatabaseError(
            f"{name} has schema revision {before or 'none'} and cannot be upgraded to {head}: it is read-only",
            f"copy it to a folder of yours: cp {name} .",
        )

    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with writing(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        # Asked again under the lock (SQLite's came with the transaction): another process may have upgraded meanwhile.
        before = current_revision(connection, name)
        if before != head:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, head


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    more = ", …" if len(names) > 3 else ""
    return f"the table {shown}" if len(names) == 1 else f"{len(names)} tables ({shown}{more})"
