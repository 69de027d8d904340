"""Index maps, as TVM's layout transformations take them, for any number of dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Any

IndexMap = Callable[..., list[Any]]


def flat_index(indices: Sequence[Any], extents: Sequence[int]) -> Any:
    """Return the place of an element in row-major order."""
    total: Any = 0
    for index, extent in zip(indices, extents, strict=True):
        total = total * extent + index
    return total


def flat_runs(extents: Sequence[int], runs: Sequence[Sequence[int]]) -> IndexMap:
    """Return the map to the places in runs of neighbouring dimensions."""

    def place(*indices: Any) -> list[Any]:
        return [flat_index([indices[n] for n in run], [extents[n] for n in run]) for run in runs]

    return _of(len(extents), place)


def rows_and_elements(extents: Sequence[int], rows: int) -> IndexMap:
    """Return the map to one of ``rows`` equal stretches of row-major order, and the place in it.

    One dimension may be divided between both. Of exactly ``rows`` elements, the map is to the place alone.

    Raises:
        ValueError: no dimension can be divided so.
    """
    if math.prod(extents) == rows:
        return _of(len(extents), lambda *indices: [flat_index(indices, extents)])
    first = next(n for n in range(len(extents)) if math.prod(extents[: n + 1]) > rows)
    outer, rest = divmod(rows, math.prod(extents[:first]))
    if rest or extents[first] % outer:
        raise ValueError("the rows are no stretches of memory")
    inner = extents[first] // outer

    def place(*indices: Any) -> list[Any]:
        row = flat_index(indices[:first], extents[:first])
        if outer > 1:
            row = row * outer + indices[first] // inner
        own = indices[first] % inner if outer > 1 else indices[first]
        return [row, flat_index([own, *indices[first + 1 :]], [inner, *extents[first + 1 :]])]

    return _of(len(extents), place)


def _of(count: int, place: IndexMap) -> IndexMap:
    """Return ``place`` with a signature of ``count`` parameters, which TVM counts."""
    names = [Parameter(f"i{n}", Parameter.POSITIONAL_ONLY) for n in range(count)]
    place.__signature__ = Signature(names)  # type: ignore[attr-defined]
    return place
