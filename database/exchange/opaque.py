"""Entries of other programs' files that the installed TVM cannot read: stored unchanged, listed, never used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy import Connection, func, select

from ...support.hashing import digest_of
from ..schema.records import OpaqueKind
from ..schema.rows import clean
from ..schema.rows import opaque as opaque_table
from ..sql_helpers import insert_missing
from ..store import Store


@dataclass(frozen=True)
class OpaqueEntry:
    """One line of a file: its ``text``, where it stood (``position`` counts from 1), and why it cannot be read."""

    kind: OpaqueKind
    source: str
    position: int
    text: str
    reason: str


def keep_opaque(store: Store, entries: Iterable[OpaqueEntry]) -> int:
    """Add the entries whose texts are not stored yet, and return their number. Raises DatabaseError."""
    fresh = {digest_of(entry.text): entry for entry in entries}
    with store.writing() as connection:
        known = {
            digest
            for digest in fresh
            if connection.execute(select(opaque_table.c.id).where(opaque_table.c.digest == digest)).first()
        }
        rows = [
            {
                "digest": digest,
                "kind": entry.kind,
                "source": clean(entry.source)[:1024],
                "position": entry.position,
                "text": entry.text,
                "reason": clean(entry.reason),
                "added": datetime.now(timezone.utc),
            }
            for digest, entry in fresh.items()
            if digest not in known
        ]
        insert_missing(connection, opaque_table, rows)
    return len(rows)


@dataclass(frozen=True)
class OpaqueCount:
    """How many entries of one kind, from files of one name, cannot be read for one reason."""

    kind: OpaqueKind
    source: str
    reason: str
    entries: int


def count_opaque(connection: Connection) -> list[OpaqueCount]:
    """Count the stored entries by kind, file and reason, the most frequent first."""
    columns = opaque_table.c.kind, opaque_table.c.source, opaque_table.c.reason
    count = func.count().label("entries")
    query = select(*columns, count).group_by(*columns).order_by(count.desc(), *columns)
    return [OpaqueCount(*row) for row in connection.execute(query)]
