"""Checks that a SQLite file, which may come from a stranger, holds our tables and nothing that runs.

A trigger runs with each insertion, a view or a generated column with each question, a virtual table calls whatever
module it names. We make none of them.
"""

from __future__ import annotations

from sqlalchemy import Connection

from ...support.errors import DatabaseError
from .tables import Base

_OBJECTS = """
SELECT name FROM sqlite_schema
WHERE type NOT IN ('table', 'index') OR sql LIKE '%TRIGGER%' OR sql LIKE '%VIEW%' OR sql LIKE '%VIRTUAL%'
ORDER BY name LIMIT 1
"""
"""Reads the SQL text, since SQLite runs the text whatever the row's type column says."""

_COLUMNS = """
SELECT tables.name, columns.name, columns.hidden
FROM sqlite_schema AS tables JOIN pragma_table_xinfo(tables.name) AS columns
WHERE tables.type = 'table'
"""


def check_objects(connection: Connection, name: str) -> None:
    """Raise DatabaseError where a SQLite file holds triggers, views or virtual tables; reads nothing else."""
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql(_OBJECTS).scalar()
    if found is not None:
        raise DatabaseError(
            f"{name} holds {found}, a trigger, a view or a virtual table: wgtune makes none, and they would run",
            "use no such file from a stranger; where it is yours, open it with sqlite3 and drop what you added",
        )


def check_columns(connection: Connection, name: str) -> None:
    """Raise DatabaseError where our tables lack columns, have others, or compute them."""
    if connection.dialect.name != "sqlite":
        return
    found: dict[str, set[str]] = {}
    for table, column, hidden in connection.exec_driver_sql(_COLUMNS):
        if table in Base.metadata.tables and hidden:
            raise DatabaseError(f"{name}: {table}.{column} is computed, which no column of wgtune's is", _HINT)
        found.setdefault(table, set()).add(column)
    for table in Base.metadata.sorted_tables:
        expected = {column.name for column in table.columns}
        if table.name not in found:
            raise DatabaseError(f"{name}: the table {table.name} is missing", _HINT)
        if odd := sorted(expected ^ found[table.name]):
            state = "lacks" if odd[0] in expected else "has an unknown"
            raise DatabaseError(f"{name}: the table {table.name} {state} column {odd[0]}", _HINT)


_HINT = "the file is damaged or was changed by another program: restore a copy"
