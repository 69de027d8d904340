"""Merging of databases: the result does not depend on order, grouping or repetition.

Rows are matched by the columns that name them in every database (`portable_rows.KEYS`). Where two rows differ, a total
order over their contents decides which one is kept. The greatest of several rows is the same in any sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Table, and_, func, select, update

from ...support.enums import TrialState
from ...support.errors import DatabaseError
from ..readonly import opened
from ..schema.columns import BadValue
from ..schema.engine import check_file, parse_url, real_path, sqlite_path
from ..schema.records import SessionOutcome, unnamed
from ..schema.rows import alias, device, replay, schedule, session, trial, workload
from ..sql_helpers import insert_missing, matching
from ..store import Store
from .integrity import check_row
from .portable_rows import AT_ONCE, KEYS, NAMES, Names, canonical, key_of, rows

Edit = Callable[[Table, dict[str, Any]], "dict[str, Any] | None"]

_FINAL = 2
"""The rank of final contents: two different final contents of one row are a conflict."""


@dataclass
class Merged:
    """The result of a merge, as numbers of rows by table.

    ``added`` rows were new. ``changed`` rows took the other side's content, for example where a trial had ended there.
    ``conflicts`` are rows that were final on both sides and yet different; one of the two was kept.
    """

    into: str
    sources: list[str] = field(default_factory=list)
    added: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    conflicts: dict[str, int] = field(default_factory=dict)


def merge(sources: Sequence[str], into: str | None = None) -> Merged:
    """Add the content of ``sources`` to the database ``into`` (created if missing; None is the user's own).

    Each source is one transaction: an error leaves those before it merged and nothing of its own.

    Raises:
        DatabaseError: a database cannot be opened, is newer than this program, is damaged, or is its own source; times
            of cold caches would come to lie beside times of warm ones.
    """
    target_path = sqlite_path(parse_url(into))
    for source in sources:
        path = sqlite_path(parse_url(source))
        if path is not None:
            check_file(path, create=False)
        if path is not None and target_path is not None and real_path(path) == real_path(target_path):
            raise DatabaseError(f"{path} is to be merged into itself", "name another database with --into")
    with Store.open(into) as target:
        done = Merged(target.name)
        for source in sources:
            with opened(source) as reader, target.writing(durable=True) as writing, reader.reading() as reading:
                absorb(reading, writing, done)
                check_conditions(writing, target.name)
            done.sources.append(reader.name)
    return done


def check_conditions(connection: Connection, name: str) -> None:
    """Check that each device's times were all taken with cold caches, or all with warm ones. Raises DatabaseError."""
    mixed = connection.execute(
        select(device.c.key)
        .join_from(session, device)
        .group_by(device.c.key, session.c.runtime)
        .having(func.count(session.c.cache.distinct()) > 1)
        .order_by(device.c.key)
        .limit(1)
    ).scalar()
    if mixed is not None:
        raise DatabaseError(
            f"{name} would hold times of {mixed} with cold caches beside times with warm ones, which do not compare",
            "keep databases of `wgtune tune --cache cold` apart from the others",
        )


def absorb(source: Connection, target: Connection, done: Merged, edit: Edit | None = None) -> None:
    """Copy the content of one connection to the other; ``edit`` may change a row, or drop it by returning None."""
    names, numbers = Names(), Names()
    for table in KEYS:
        found = rows(source, table, names)
        while batch := list(islice(found, AT_ONCE)):
            edited = batch if edit is None else [row for row in (edit(table, row) for row in batch) if row is not None]
            _absorb_rows(target, table, [_named(table, row, names) for row in edited], numbers, done)


def _named(table: Table, row: dict[str, Any], names: Names) -> dict[str, Any]:
    try:
        check_row(table, row)
        return names.named(row)
    except BadValue as error:
        raise BadValue(f"a row of {table.name}: {error}") from None


def _absorb_rows(target: Connection, table: Table, batch: list[dict[str, Any]], numbers: Names, done: Merged) -> None:
    kept = _existing(target, table, [numbers.numbered(row) for row in batch], numbers)
    missing = [row for row in batch if key_of(table, row) not in kept]
    insert_missing(target, table, [numbers.numbered(row) for row in missing])
    done.added[table.name] = done.added.get(table.name, 0) + len(missing)
    if table in NAMES:
        name = table.c[NAMES[table]]
        for match in matching([name], [(row[name.name],) for row in missing]):
            for row_id, text in target.execute(select(table.c.id, name).where(match)):
                numbers.learn(table, row_id, text)
    if table is schedule:
        return  # one digest, one text
    for row in batch:
        old = kept.get(key_of(table, row))
        if old is None or old == row:
            continue
        new, conflict = _settled(table, old, row)
        if conflict:
            done.conflicts[table.name] = done.conflicts.get(table.name, 0) + 1
        if new != old:
            done.changed[table.name] = done.changed.get(table.name, 0) + 1
            values = numbers.numbered(new)
            same = and_(*(table.c[column] == values[column] for column in KEYS[table]))
            target.execute(update(table).where(same).values(**values))


def _existing(
    target: Connection, table: Table, batch: list[dict[str, Any]], numbers: Names
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the target's rows with the keys of ``batch``, by key, with names for ids; schedules without their text."""
    columns = [table.c[column] for column in KEYS[table]]
    wanted = [table.c.id, table.c.digest] if table is schedule else list(table.c)
    found = {}
    for match in matching(columns, [tuple(row[column.name] for column in columns) for row in batch]):
        for row in target.execute(select(*wanted).where(match)):
            values = dict(row._mapping)
            if table in NAMES:
                numbers.learn(table, values["id"], values[NAMES[table]])
            if "device_id" in values and table is session:
                _learn_missing(target, device, values["device_id"], numbers)
            if table is trial:
                for other in (workload, device, schedule):
                    _learn_missing(target, other, values[f"{other.name}_id"], numbers)
            named = numbers.named(values)
            found[key_of(table, named)] = named
    return found


def _learn_missing(target: Connection, table: Table, row_id: int, numbers: Names) -> None:
    """Two copies of a trial may disagree on what they refer to; then the target's is not among the source's."""
    if not numbers.knows(table, row_id):
        name = target.execute(select(table.c[NAMES[table]]).where(table.c.id == row_id)).scalar_one()
        numbers.learn(table, row_id, name)


def _settled(table: Table, old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Which content stays, and whether both were final: the same whichever of the two came first."""
    if table is device:
        return {column: _described(old[column], new[column]) for column in old}, False
    first, second = _rank(table, old), _rank(table, new)
    if first != second:
        return (old if first > second else new), False
    return min(old, new, key=canonical), table in (trial, session) and first[0] == _FINAL


def _described(one: Any, other: Any) -> Any:
    """A field of a device: a description rather than none, then the smaller text; software where either says so."""
    if isinstance(one, bool):
        return one or other
    return min(one, other) if one and other else one or other


def _rank(table: Table, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return how complete a row is: the higher is kept. `canonical` decides between equal ranks."""
    if table is trial:
        state = row["state"]
        return (_FINAL if state.ended and state is not TrialState.ABANDONED else 1 if state.ended else 0,)
    if table is session:
        outcome = row["outcome"]
        ended = {SessionOutcome.RUNNING: 0, SessionOutcome.KILLED: 1}.get(outcome, _FINAL)
        return (ended, bool(row["host"]))
    if table is workload:
        return (row["name"] != unnamed(row["digest"]),)
    if table is replay:
        return (row["checked"],)
    if table is alias:
        return (row["created"],)
    return ()
