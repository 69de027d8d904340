"""SQL statements that several modules share: inserts of rows that may exist, and look-ups by several columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from ..support.hashing import digest_of
from .schema.rows import schedule

AT_ONCE = 200
"""Values in one statement: databases limit the number of parameters."""


def insert_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """Insert a row and return its id."""
    # As parameters: a statement that holds the values is made anew for each row.
    key = connection.execute(insert(table), dict(values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def insert_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows that do not exist yet, by their unique columns, and ignore the others.

    On PostgreSQL this waits for a row that another transaction is inserting, and then finds it.
    """
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(table).on_conflict_do_nothing(), [dict(row) for row in rows])


def find_or_insert(connection: Connection, table: Table, column: str, values: Mapping[str, Any]) -> int:
    """Return the id of the row with this value in the unique ``column``; insert ``values`` where there is none."""
    query = select(table.c.id).where(table.c[column] == values[column])
    found = connection.execute(query).scalar()
    if found is None:
        insert_missing(connection, table, [values])
        found = connection.execute(query).scalar_one()
    return int(found)


def schedule_id(connection: Connection, trace: str) -> int:
    """Return the id of the schedule with this text, and add it if it is new."""
    values = {"digest": digest_of(trace), "trace": trace}
    added = connection.execute(_NEW_SCHEDULE[connection.dialect.name], values).scalar()
    if added is None:
        added = connection.execute(_SCHEDULE, {"wanted": values["digest"]}).scalar_one()
    return int(added)


def matching(columns: Sequence[ColumnElement[Any]], keys: Collection[Sequence[Any]]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that together select the rows whose ``columns`` equal one of ``keys``, each row once.

    A row value ``(a, b) IN (…)`` would be one condition, but SQLite would scan the whole table for it. So every column
    except the one with the most distinct values is compared with ``=``. Sorted keys give few conditions.
    """
    wanted = list(dict.fromkeys(tuple(key) for key in keys))
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        varied = max(range(len(columns)), key=lambda i: len({key[i] for key in some}))
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for key in some:
            groups.setdefault((*key[:varied], *key[varied + 1 :]), []).append(key[varied])
        others = [column for i, column in enumerate(columns) if i != varied]
        for same, values in groups.items():
            equal = (column == value for column, value in zip(others, same, strict=True))
            yield and_(*equal, columns[varied].in_(values))


_SCHEDULE = select(schedule.c.id).where(schedule.c.digest == bindparam("wanted"))
_NEW_SCHEDULE = {
    "sqlite": sqlite.insert(schedule).on_conflict_do_nothing().returning(schedule.c.id),
    "postgresql": postgresql.insert(schedule).on_conflict_do_nothing().returning(schedule.c.id),
}
