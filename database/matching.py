"""Finding rows by several columns at once, by an index."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_

AT_ONCE = 200
"""Values looked for in one statement: databases limit the number of parameters."""


def matching(columns: Sequence[ColumnElement[Any]], keys: Collection[Sequence[Any]]) -> Iterator[ColumnElement[bool]]:
    """Conditions that together hold for the rows whose ``columns`` are one of ``keys``, each once.

    A row value ``(a, b) IN (…)`` would be one condition, for which SQLite reads the whole table. So all columns but the
    one that differs most are compared with ``=``, which leaves few conditions where keys come sorted.
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
