"""Checks of a database, row by row, as `wgtune db check` prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Dialect, Double, Table, select, type_coerce
from sqlalchemy.types import NULLTYPE

from ...support.enums import TrialState
from ..schema.columns import BadValue
from ..schema.records import SessionOutcome
from ..schema.rows import (
    check_digest,
    check_facts,
    check_latency,
    compiled_shader,
    opaque,
    schedule,
    schedule_features,
    session,
    to_features,
    trial,
    workload,
)
from ..schema.tables import Base

MOST = 20
"""Most problems listed of one kind."""

_AT_ONCE = 1000


def sqlite_problems(connection: Connection) -> list[str]:
    """Return what SQLite's own checks find: pages, indexes, constraints, references."""
    problems = [row[0] for row in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST})") if row[0] != "ok"]
    for table, row_id, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(MOST):
        problems.append(f"{table} {row_id} refers to a {parent} that is not there")
    return problems


def row_problems(connection: Connection) -> list[str]:
    """Return values that cannot be read back or contradict each other, and texts that do not match their digests."""
    return [problem for table in Base.metadata.sorted_tables for problem in _table_problems(connection, table)]


def unfinished_problems(connection: Connection) -> list[str]:
    """Return trials that are running in sessions that have ended."""
    unfinished = (
        select(trial.c.id, trial.c.session_id)
        .join_from(trial, session)
        .where(trial.c.state == TrialState.RUNNING, session.c.outcome != SessionOutcome.RUNNING)
        .limit(MOST)
    )
    return [
        f"trial {row.id} is running, but its session {row.session_id} has ended"
        for row in connection.execute(unfinished)
    ]


def _table_problems(connection: Connection, table: Table) -> list[str]:
    converters = [_converter(column, connection.dialect) for column in table.columns]
    # Values as they are kept: one that cannot be converted would end the reading of all the rows behind it.
    query = select(*(type_coerce(column, NULLTYPE).label(column.name) for column in table.columns))
    problems: list[str] = []
    for row in connection.execution_options(yield_per=_AT_ONCE).execute(query):
        name = f"{table.name} {'/'.join(str(row._mapping[key.name]) for key in table.primary_key)}"
        for problem in _row_problems(table, row, converters):
            problems.append(f"{name}: {problem}")
        if len(problems) >= MOST:
            return [*problems[:MOST], f"{table.name}: perhaps more; the rest was not looked at"]
    return problems


def _row_problems(table: Table, row: Any, converters: list[Callable[[Any], Any]]) -> Iterator[str]:
    values: dict[str, Any] = {}
    for column, convert, value in zip(table.columns, converters, row, strict=True):
        if value is None and not column.nullable:
            yield f"{column.name} is missing"
        elif value is not None:
            try:
                value = convert(value)
            except BadValue as error:
                yield f"{column.name}: {error}"
                return
        values[column.name] = value
    try:
        check_row(table, values)
    except BadValue as error:
        yield str(error)


def check_row(table: Table, values: Mapping[str, Any]) -> None:
    """Raise BadValue where the columns of a row, by name, contradict each other."""
    rule = _RULES.get(table)
    if rule is not None and None not in (values[name] for name in rule[0]):
        rule[1](values)


def _converter(column: Any, dialect: Dialect) -> Callable[[Any], Any]:
    if dialect.name != "sqlite" and isinstance(column.type, Double):
        return lambda value: value  # a server keeps nothing but numbers in such a column
    return column.type.dialect_impl(dialect).result_processor(dialect, None) or (lambda value: value)


def _check_features(values: Mapping[str, Any]) -> None:
    to_features(values["features"])


_RULES: Mapping[Table, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], None]]] = {
    workload: (("text", "digest"), lambda values: check_digest(values["text"], values["digest"], "workload")),
    schedule: (("trace", "digest"), lambda values: check_digest(values["trace"], values["digest"], "trace")),
    opaque: (("text", "digest"), lambda values: check_digest(values["text"], values["digest"], "text")),
    trial: (
        ("state", "samples_s"),
        lambda values: check_latency(values["state"], values["samples_s"], values["latency_s"]),
    ),
    compiled_shader: ((), check_facts),
    schedule_features: (("features",), _check_features),
}
"""What must hold between the columns of a table's rows, and which columns it needs."""
