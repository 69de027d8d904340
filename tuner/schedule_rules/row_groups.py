"""Rows and threads of a workgroup that reduces rows: which of them fit, and which promise most on an unknown GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .rule import Limits, Quantities, Values
from .tiles import divisors, vector_width

_MOST_KEPT = 96
"""Most elements of a row that a thread keeps in registers, where a workgroup has no more than `_THREADS`."""

_THREADS = 256
"""Most threads of a workgroup by default: with more, GPUs have too few registers for a long row."""

_VECTORS = 6
"""Most vectors that a thread takes of a row where enough threads may run; their loads wait together."""

FAN = 32
"""Most values that a thread reads from workgroup memory to combine them; more threads exchange twice."""

_MOST_THREADS = 192
"""Most threads of a workgroup that has several rows."""

_WAITING = 8
"""Threads for each lane that keep memory busy, on a large GPU."""

_SEGMENT = 16
"""Elements of a row that neighbouring threads should take together: a segment of memory."""


@dataclass(frozen=True)
class RowKernel:
    """A kernel that reduces rows.

    ``stages`` are its blocks in order, without the last one, ``reductions`` those that reduce. ``combiners`` are their
    operators by TVM's names, empty where one combines several results. ``rows`` is the number of rows and ``elements``
    that of each.
    ``per_row`` are blocks that compute one value a row, ``between`` those that compute elements which a later reduction
    reads. ``before`` compute the elements that the first one reads.
    """

    stages: tuple[str, ...]
    reductions: tuple[str, ...]
    per_row: tuple[str, ...]
    between: tuple[str, ...]
    before: tuple[str, ...]
    inlined: tuple[str, ...]
    output: str
    combiners: tuple[str, ...]
    rows: int
    elements: int
    itemsize: int

    @property
    def vector(self) -> int:
        """The vector width of accesses."""
        return vector_width(self.elements)

    @property
    def vectors(self) -> int:
        """Vectors of a row."""
        return self.elements // self.vector


def default_group(found: RowKernel, limits: Limits) -> tuple[int, int]:
    """Return the threads of a row and the rows of a workgroup that promise most on an unknown GPU."""
    choices = [
        (threads, rows)
        for threads in divisors(found.vectors, min(_THREADS, limits.threads))
        for rows in divisors(found.rows, max(1, limits.threads // threads))
        if threads * rows <= max(threads, _MOST_THREADS)
    ]
    return max(choices, key=lambda choice: _promise(found, limits, *choice))


def _promise(found: RowKernel, limits: Limits, threads: int, rows: int) -> float:
    """Return how well a GPU is used, in no unit: its lanes, memory, loads that wait together, and few exchanges."""
    turns = found.vectors // threads
    lanes = threads * rows / (-(-threads * rows // limits.wave) * limits.wave)
    # A CPU's lanes do not wait for memory side by side.
    wanted = limits.lanes * (_WAITING if limits.shares else 1)
    busy = min(1.0, found.rows * threads / wanted)
    together = min(1.0, math.sqrt(threads * found.vector / _SEGMENT))
    waiting = min(1.0, 0.8 + 0.1 * turns, 0.5 + 0.5 * _VECTORS / turns)
    exchange = 1.0 if threads <= FAN else 0.85
    # Of equal ones the smallest workgroup, with the least to exchange.
    least = 1e-6 * (threads * rows + threads)
    if not limits.shares:
        return lanes * busy * (1.0 if threads == 1 else 0.5) - least
    return lanes * busy * together * waiting * exchange - least


def fits(found: RowKernel, limits: Limits, values: Values) -> bool:
    """Return whether values keep the limits of a workgroup, and a kept row fits registers."""
    threads, rows = values["threads"], values["rows"]
    return (
        threads * rows <= limits.threads
        and found.vectors % threads == 0
        and found.rows % rows == 0
        and _exchanged(found, values) <= limits.shared_bytes
        and (not values["kept"] or can_keep(found, threads, rows))
    )


def _exchanged(found: RowKernel, values: Values) -> int:
    """Return the bytes of workgroup memory in which threads exchange results."""
    if values["threads"] == 1:
        return 0
    places = values["threads"] + second_exchange(values["threads"], values["fan"])
    return 2 * len(found.reductions) * found.itemsize * values["rows"] * places


def describe(found: RowKernel, limits: Limits, values: Values) -> Quantities:
    """Return what search learns from of values that fit."""
    threads, rows = values["threads"], values["rows"]
    turns = found.vectors // threads
    return Quantities(
        threads=threads * rows,
        groups=found.rows // rows,
        results=found.elements // threads,
        vector=found.vector,
        statements=turns if values["kept"] else min(turns, values["unroll"]),
        shared_bytes=_exchanged(found, values),
        cost=1 / max(1e-6, _promise(found, limits, threads, rows)),
    )


def can_keep(found: RowKernel, threads: int, rows: int) -> bool:
    """Return whether a row's elements, shared out to its threads, fit registers."""
    own = found.elements // threads
    return own <= _MOST_KEPT and own * threads * rows <= _MOST_KEPT * _THREADS


def second_exchange(threads: int, fan: int) -> int:
    """Return the values of the second exchange, about as many as each thread then combines; 0 where one will do."""
    return min(divisors(threads), key=lambda n: max(n, threads // n)) if threads > fan else 0
