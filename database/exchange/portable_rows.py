"""Rows in which names that hold in every database replace ids, and digests of a database's content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from enum import Enum
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Table, select

from ..schema.columns import BadValue
from ..schema.rows import (
    alias,
    compiled_shader,
    device,
    model,
    model_kernel,
    opaque,
    program_shader,
    replay,
    schedule,
    schedule_features,
    session,
    trial,
    workload,
    workload_form,
)
from ..sql_reader import SqlReader

NAMES: Mapping[Table, str] = {
    device: "key",
    workload: "digest",
    model: "capture_key",
    session: "uid",
    schedule: "digest",
}
"""The column that names a row of a table wherever there is a copy of it, for tables that others refer to."""

KEYS: Mapping[Table, tuple[str, ...]] = {
    device: ("key",),
    workload: ("digest",),
    workload_form: ("workload_id", "tvm_version"),
    model: ("capture_key",),
    model_kernel: ("model_id", "stage", "workload_id"),
    session: ("uid",),
    schedule: ("digest",),
    trial: ("session_id", "number"),
    replay: ("workload_id", "schedule_id", "tvm_version"),
    alias: ("level", "name"),
    opaque: ("digest",),
    program_shader: ("program_digest", "position"),
    compiled_shader: ("shader_digest", "compiler", "chip"),
    schedule_features: ("schedule_digest", "workload_digest", "version"),
}
"""The tables that are content, each after those it refers to, with the columns that identify a row.

Leases and a release's description of itself belong to one database and are no content."""

_BY_DIGEST: Mapping[Table, str] = {
    schedule: "digest",
    opaque: "digest",
    program_shader: "program_digest",
    compiled_shader: "shader_digest",
    schedule_features: "schedule_digest",
}
"""Large tables, which are read in the order of a digest: digests sort alike in every database."""

_LATER = frozenset({program_shader, compiled_shader, schedule_features})
"""Tables of later revisions, which count in a content's digest only where they hold something: a release that was
written before them keeps its digest."""

_LATER_COLUMNS: Mapping[Table, frozenset[str]] = {session: frozenset({"calibration"})}
"""Columns of later revisions, of which the same holds for each row."""

AT_ONCE = 1000
"""Rows that are read or written together."""

_BY_COLUMN = {f"{table.name}_id": table for table in NAMES}


class Names:
    """Both directions between a database's ids and names, as far as `learn` was told."""

    def __init__(self) -> None:
        self._names: dict[Table, dict[int, str]] = {table: {} for table in NAMES}
        self._ids: dict[Table, dict[str, int]] = {table: {} for table in NAMES}

    def learn(self, table: Table, row_id: int, name: str) -> None:
        """Store the name of a row of one of the tables in `NAMES`."""
        self._names[table][row_id] = name
        self._ids[table][name] = row_id

    def knows(self, table: Table, row_id: int) -> bool:
        """Return whether the row with that id was learned."""
        return row_id in self._names[table]

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row's columns without its id, the ids in it replaced by names. Raises BadValue where one is unknown."""
        named = {}
        for column, value in values.items():
            if column in _BY_COLUMN:
                table = _BY_COLUMN[column]
                if value not in self._names[table]:
                    raise BadValue(f"it refers to a {table.name} {value!r}, which is not there")
                named[column] = self._names[table][value]
            elif column != "id":
                named[column] = value
        return named

    def numbered(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inverse of `named`."""
        return {
            column: self._ids[_BY_COLUMN[column]][value] if column in _BY_COLUMN else value
            for column, value in values.items()
        }


def rows(connection: Connection, table: Table, names: Names) -> Iterator[dict[str, Any]]:
    """Return every row of a table as a dictionary with its ids, ordered by what names it, whatever the ids.

    ``names`` learns the rows of tables that others refer to as they pass: read those first.
    """
    if table is trial:
        uids = connection.execute(select(session.c.uid, session.c.id)).all()
        for _, session_id in sorted(map(tuple, uids)):
            query = select(trial).where(trial.c.session_id == session_id).order_by(trial.c.number)
            for row in connection.execution_options(yield_per=AT_ONCE).execute(query):
                yield dict(row._mapping)
        return
    query = select(table)
    if table in _BY_DIGEST:
        digest = _BY_DIGEST[table]
        query = query.order_by(table.c[digest])
        read = (dict(row._mapping) for row in connection.execution_options(yield_per=AT_ONCE).execute(query))
        for _, same in groupby(read, key=lambda values: values[digest]):
            for values in sorted(same, key=lambda values: key_of(table, values)):
                if table is schedule:
                    names.learn(table, values["id"], values["digest"])
                yield values
        return
    found = [dict(row._mapping) for row in connection.execute(query)]
    if table in NAMES:
        for values in found:
            names.learn(table, values["id"], values[NAMES[table]])
    try:
        ordered = sorted(found, key=lambda values: key_of(table, names.named(values)))
    except BadValue as error:
        raise BadValue(f"a row of {table.name}: {error}") from None
    yield from ordered


def key_of(table: Table, named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values that identify a row of names within its table."""
    return tuple(_plain(named[column]) for column in KEYS[table])


def canonical(values: Mapping[str, Any]) -> str:
    """Columns as JSON that is the same for the same values: sorted, times in ISO 8601, no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), default=_plain)


def content_digest(reader: SqlReader) -> str:
    """SHA-256 of everything that a database holds, in hexadecimal; the same for every copy, merge order and backend.

    It is taken over the sorted SHA-256 of all rows in `canonical` form, ids replaced by names.
    """
    with reader.reading() as connection:
        return digest_rows(connection)


def digest_rows(connection: Connection) -> str:
    """`content_digest` within a transaction."""
    names = Names()
    whole = hashlib.sha256()
    for table in KEYS:
        later = _LATER_COLUMNS.get(table, frozenset())
        digests = sorted(
            hashlib.sha256(canonical(_counted(names.named(values), later)).encode()).digest()
            for values in rows(connection, table, names)
        )
        if digests or table not in _LATER:
            whole.update(f"{table.name} {len(digests)}\n".encode())
        for one in digests:
            whole.update(one)
    return whole.hexdigest()


def _counted(named: Mapping[str, Any], later: Collection[str]) -> Mapping[str, Any]:
    return {column: value for column, value in named.items() if value or column not in later}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return value
