"""Transposes: blocks of 4 × 4 elements in a thread's registers, read as vectors one way and written the other way.

Threads of a workgroup lie as a square, so that reads and writes alike take whole segments of memory.
"""

from __future__ import annotations

import math
from functools import partial

from tvm import IRModule
from tvm.s_tir import Schedule

from .pointwise import Pointwise, find_pointwise
from .rule import Limits, Parameter, Quantities, RuleSpace, Values
from .tiles import divisors, vector_width

_SIDE = 8
"""Threads of a workgroup along each side: 8 vectors are a segment of 128 bytes."""


def transpose(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of a kernel that reads one operand across the direction that it writes in, None for others."""
    found = find_pointwise(module)
    if found is None or len(found.across) != 1:
        return None
    ((_, across),) = found.across.items()
    high, wide = found.extents[across], found.extents[-1]
    rows, columns = vector_width(high), vector_width(wide)
    parameters = (
        Parameter("rows", divisors(rows), rows),
        Parameter("columns", divisors(columns), columns),
        Parameter("threads_r", divisors(high // rows, 32), divisors(high // rows, _SIDE)[-1]),
        Parameter("threads_c", divisors(wide // columns, 32), divisors(wide // columns, _SIDE)[-1]),
    )
    sizes = {"rows": math.prod(found.extents[:-1]), "columns": wide}
    fits, describe = partial(_fits, high, wide, limits), partial(_describe, math.prod(found.extents))
    return RuleSpace("transpose", module, parameters, fits, partial(_build, found), sizes, describe)


def _fits(high: int, wide: int, limits: Limits, values: Values) -> bool:
    return (
        high % (values["rows"] * values["threads_r"]) == 0
        and wide % (values["columns"] * values["threads_c"]) == 0
        and values["threads_r"] * values["threads_c"] <= limits.threads
    )


def _describe(elements: int, values: Values) -> Quantities:
    threads, results = values["threads_r"] * values["threads_c"], values["rows"] * values["columns"]
    vector = values["columns"]
    return Quantities(threads, elements // (threads * results), results, vector, values["rows"], 0)


def _build(found: Pointwise, schedule: Schedule, values: Values) -> None:
    output = found.inline(schedule)
    ((read, across),) = found.across.items()
    copy = found.cache(schedule, output, read)
    loops = schedule.get_loops(output)
    row, column = loops.pop(across), loops.pop()
    group_r, thread_r, own_r = schedule.split(row, [None, values["threads_r"], values["rows"]])
    group_c, thread_c, lane = schedule.split(column, [None, values["threads_c"], values["columns"]])
    schedule.reorder(*loops, group_r, group_c, thread_r, thread_c, own_r, lane)
    group_y = schedule.fuse(*loops, group_r) if loops else group_r
    for loop, axis in ((group_y, "blockIdx.y"), (group_c, "blockIdx.x")):
        schedule.bind(loop, axis)
    schedule.bind(thread_r, "threadIdx.y")
    schedule.bind(thread_c, "threadIdx.x")
    schedule.compute_at(copy, thread_c)
    over = schedule.get_loops(copy)[4:]
    if values["rows"] > 1:
        schedule.vectorize(over.pop())
    for loop in over:
        schedule.unroll(loop)
    schedule.unroll(own_r)
    if values["columns"] > 1:
        schedule.vectorize(lane)
