"""Tile sizes of a contraction: divisors, and the choice for a GPU that nobody has measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .rule import Limits, Quantities

_OVERHEAD = 6
"""Instructions of a step of the inner loop beside its loads and multiply-adds, for addresses and waiting."""

_TRAFFIC = 12
"""Multiply-adds that a GPU makes while one value comes from memory or cache, roughly: 10 to 20 for GPUs of 2020 to 2026
(peak rates over the bandwidth of the last-level cache)."""


def divisors(extent: int, most: int | None = None) -> tuple[int, ...]:
    """Return the divisors of ``extent`` up to ``most``, ascending."""
    top = extent if most is None else min(extent, most)
    return tuple(n for n in range(1, top + 1) if extent % n == 0)


def vector_width(extent: int) -> int:
    """Return the widest vector that divides ``extent``: 4, 2 or 1."""
    return next(width for width in (4, 2, 1) if extent % width == 0)


@dataclass(frozen=True)
class Tile:
    """A workgroup of ``threads_r`` × ``threads_c`` threads, each with ``rows`` × ``columns`` results."""

    threads_r: int
    threads_c: int
    rows: int
    columns: int

    @property
    def threads(self) -> int:
        """Threads of the workgroup."""
        return self.threads_r * self.threads_c


@dataclass(frozen=True)
class Work:
    """What a tile is judged by: ``groups`` workgroups, and per term of the sum its loads.

    ``loads`` are a thread's loads from workgroup memory, ``staged`` the values that the workgroup brings from memory,
    and ``copying`` the instructions that bringing one takes.
    """

    groups: int
    loads: float
    staged: float
    copying: float


def estimated_time(tile: Tile, work: Work, limits: Limits) -> float:
    """Return the time of a contraction, in no unit, for comparing tiles of one kernel."""
    results = tile.rows * tile.columns
    copies = work.copying * work.staged / tile.threads
    share = results / (results + work.loads + copies + _OVERHEAD / 4)
    waves = -(-tile.threads // limits.wave) * limits.wave
    lanes = tile.threads / waves
    busy = min(1.0, work.groups * tile.threads / limits.lanes)
    traffic = _TRAFFIC * work.staged / (results * tile.threads)
    return max(1 / share, traffic) / (lanes * busy)


def quantities(tile: Tile, work: Work, limits: Limits, vector: int, statements: int, shared_bytes: int) -> Quantities:
    """Return what search learns from of a contraction's schedule."""
    results = tile.rows * tile.columns
    return Quantities(
        threads=tile.threads,
        groups=work.groups,
        results=results,
        vector=vector,
        statements=statements,
        shared_bytes=shared_bytes,
        loads=work.loads / results,
        staged=work.staged / (results * tile.threads),
        cost=estimated_time(tile, work, limits),
    )


def best_tile(tiles: Iterable[tuple[Tile, Work]], limits: Limits) -> Tile | None:
    """Return the tile with the least estimated time; of equal ones the first."""
    best: tuple[float, Tile] | None = None
    for tile, work in tiles:
        time = estimated_time(tile, work, limits)
        if best is None or time < best[0] * 0.999:
            best = (time, tile)
    return best[1] if best else None
