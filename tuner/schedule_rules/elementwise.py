"""Kernels without a reduction: each thread computes vectors of neighbouring elements.

Sums, activations, concatenations, splits, paddings, resizing, look-ups and reshapes. All blocks become part of the last
one. Workgroups lie along rows of memory, so that what depends on the row alone is the same for a workgroup.
"""

from __future__ import annotations

import math
from functools import partial

from tvm import IRModule
from tvm.s_tir import Schedule

from .pointwise import Pointwise, find_pointwise
from .rule import Limits, Parameter, Quantities, RuleSpace, Values
from .tiles import divisors, vector_width

_THREADS = 256
"""Most threads of a workgroup by default; where that leaves too few workgroups, one wave."""

_MOST_GROUPS = 65535
"""Most workgroups along y (W3C WebGPU, "maxComputeWorkgroupsPerDimension")."""


def elementwise(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of a kernel without a reduction, None for others."""
    found = find_pointwise(module)
    if found is None:
        return None
    rows, columns = math.prod(found.extents[:-1]), found.extents[-1]
    vector = vector_width(columns)
    most = min(limits.threads, _THREADS if rows * columns // vector >= 4 * limits.lanes else limits.wave)
    wide = _widest(columns // vector, most, limits.wave)
    high = max(n for n in divisors(rows, max(1, most // wide)))
    parameters = (
        Parameter("vector", divisors(vector), vector),
        Parameter(
            "threads_c", tuple(sorted({wide, *(n for n in (16, 32, 64, 128, 256) if n <= limits.threads)})), wide
        ),
        Parameter("threads_r", divisors(rows, 64), high),
        Parameter("turns", (1, 2, 4), 1),
    )
    fits = partial(_fits, rows, columns, limits)
    sizes, describe = {"rows": rows, "columns": columns}, partial(_describe, rows * columns)
    return RuleSpace("elementwise", module, parameters, fits, partial(_build, found), sizes, describe)


def _widest(columns: int, most: int, wave: int) -> int:
    """Return the threads along a row: all that work where that is a divisor of some size, or else some idle."""
    fitting = divisors(columns, most)[-1]
    return fitting if 2 * fitting >= min(columns, most) else min(most, wave)


def _fits(rows: int, columns: int, limits: Limits, values: Values) -> bool:
    vectors = columns // values["vector"]
    wide = values["threads_c"] * values["turns"]
    return (
        columns % values["vector"] == 0
        and rows % values["threads_r"] == 0
        and values["threads_c"] * values["threads_r"] <= limits.threads
        and wide < vectors + values["threads_c"]
        and (rows == 1 or -(-vectors // wide) <= _MOST_GROUPS)
    )


def _describe(elements: int, values: Values) -> Quantities:
    threads, results = values["threads_r"] * values["threads_c"], values["vector"] * values["turns"]
    return Quantities(threads, elements / (threads * results), results, values["vector"], values["turns"], 0)


def _build(found: Pointwise, schedule: Schedule, values: Values) -> None:
    output = found.inline(schedule)
    *outer, columns = schedule.get_loops(output)
    row = schedule.fuse(*outer) if len(outer) > 1 else outer[0] if outer else schedule.add_unit_loop(columns)
    group_r, thread_r = schedule.split(row, [None, values["threads_r"]])
    group_c, turn, thread_c, lane = schedule.split(
        columns, [None, values["turns"], values["threads_c"], values["vector"]]
    )
    schedule.reorder(group_r, group_c, thread_r, thread_c, turn, lane)
    x, y = (group_r, group_c) if outer else (group_c, group_r)
    for loop, axis in ((x, "blockIdx.x"), (y, "blockIdx.y"), (thread_r, "threadIdx.y"), (thread_c, "threadIdx.x")):
        schedule.bind(loop, axis)
    schedule.unroll(turn)
    if values["vector"] > 1:
        schedule.vectorize(lane)
