"""Matrix products: plain, batched, transposed operands, 1 × 1 convolutions.

A workgroup computes a tile of rows × columns. In steps along the sum, it copies both operands' tiles to workgroup
memory; then each thread multiplies its rows with its vectors of columns, all results in registers. The copies are laid
out as threads read them: at a fixed place of the step, neighbouring threads read neighbouring vectors, and a thread's
other reads lie at constant distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from tvm import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from .contraction import Contraction, Operand, find_contraction, is_axis
from .inlining import copy_operand, inline_producers, result_in_registers, start_sums, store_vectors
from .layouts import flatten_results, lay_out
from .rule import Limits, Parameter, Quantities, RuleSpace, Values
from .tiles import Tile, Work, best_tile, divisors, quantities, vector_width

_MOST_RESULTS = 64
"""Most results of a thread: more leave too few registers for a second wave on many GPUs."""

_COPYING = 6.0
"""Instructions that copying a vector takes: load, store, addresses and clamps."""

_STEP = 16
"""Terms of the sum in a step, where that divides it: a step's copies are as long as its use, and fit 16 KiB."""


def matmul(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of a matrix product, None for other kernels."""
    found = find_contraction(Schedule(module))
    if found is None or not found.plain or not found.rows or not found.terms:
        return None
    shape = _Shape(found)
    tile = best_tile(_tiles(shape, limits.modest), limits)
    if tile is None:
        return None
    parameters = (
        Parameter("thread_rows", divisors(shape.rows, 16), tile.rows),
        Parameter("thread_columns", shape.thread_columns(16), tile.columns),
        Parameter("threads_r", divisors(shape.rows, 64), tile.threads_r),
        Parameter("threads_c", divisors(shape.columns, 64), tile.threads_c),
        Parameter("step", divisors(shape.terms, 64), _default_step(shape)),
        Parameter("staged", (0, 1), int(limits.shares)),
        Parameter("unroll", (1, 2, 4), 1),
    )
    sizes = {"batch": shape.batch, "rows": shape.rows, "columns": shape.columns, "terms": shape.terms}
    fits, build, describe = (
        partial(_fits, shape, limits),
        partial(_build, shape),
        partial(_describe, shape, limits.of_unknown_gpu),
    )
    return RuleSpace("matmul", module, parameters, fits, build, sizes, describe)


class _Shape:
    """The sizes of a product: the innermost loop of each side, the loops outside it counting as batch."""

    def __init__(self, found: Contraction) -> None:
        self.found = found
        self.row_axes = _merged(found, found.rows, found.rows_operand)
        self.column_axes = _merged(found, found.columns, found.columns_operand)
        self.rows = found.size(self.row_axes)
        self.columns = found.size(self.column_axes)
        self.terms = found.size(found.terms)
        outer = (*found.batch, *found.rows[: -len(self.row_axes)], *found.columns[: -len(self.column_axes)])
        self.batch_axes = outer
        self.batch = found.size(outer)
        self.rows_along_terms = found.runs_along(found.rows_operand, found.terms)
        self.columns_along_terms = found.runs_along(found.columns_operand, found.terms)
        self.term_vector = vector_width(self.terms) if self.rows_along_terms or self.columns_along_terms else 1

    def thread_columns(self, most: int) -> tuple[int, ...]:
        """Return the numbers of columns that a thread may have, up to ``most``."""
        return tuple(n for n in divisors(self.columns, most) if n % self.found.together == 0)

    def divides(self, tile: Tile) -> bool:
        """Return whether threads' and workgroups' tiles divide the product, and no axis that is merged with others.

        Of a tile that ends within an axis and goes on in the next row of it, TVM cannot tell the size.
        """
        sides = (
            (self.rows, self.row_axes, tile.rows, tile.threads_r),
            (self.columns, self.column_axes, tile.columns, tile.threads_c),
        )
        for total, axes, own, threads in sides:
            inner = self.found.extents[axes[-1]]
            if total % (own * threads) or any(size % inner and inner % size for size in (own, own * threads)):
                return False
        return True


def _merged(found: Contraction, axes: tuple[int, ...], operand: Operand) -> tuple[int, ...]:
    """Return the innermost axes of a side that are one stretch of memory, in the operand and in the output."""
    taken = axes[-1:]
    for axis in reversed(axes[:-1]):
        following = found.axes[taken[0]]
        adjacent = all(_adjacent(indices, found.axes[axis], following) for indices in (operand.indices, found.output))
        # Rows of several images are one stretch too; only where they are few is it worth a division.
        if not adjacent or found.size(taken) >= 64:
            break
        taken = (axis, *taken)
    return taken


def _adjacent(indices: tuple[Any, ...], first: Any, second: Any) -> bool:
    places = [n for n, index in enumerate(indices) if is_axis(index, first)]
    return bool(places) and places[0] + 1 < len(indices) and is_axis(indices[places[0] + 1], second)


def _default_step(shape: _Shape) -> int:
    fitting = [n for n in divisors(shape.terms, _STEP) if n % shape.term_vector == 0]
    return fitting[-1] if fitting else 1


def _tiles(shape: _Shape, limits: Limits) -> Iterator[tuple[Tile, Work]]:
    step = _default_step(shape)
    for rows in divisors(shape.rows, 8):
        for columns in shape.thread_columns(8):
            # Columns that are no vectors cost more than they share.
            whole = columns < 4 or vector_width(columns) == vector_width(shape.columns)
            if rows * columns > _MOST_RESULTS or not whole:
                continue
            for threads_r in divisors(shape.rows // rows, 32):
                for threads_c in divisors(shape.columns // columns, 32):
                    tile = Tile(threads_r, threads_c, rows, columns)
                    if not shape.divides(tile):
                        continue
                    if tile.threads > limits.threads or _shared_bytes(shape, tile, step) > limits.shared_bytes:
                        continue
                    yield tile, _work(shape, tile)


def _work(shape: _Shape, tile: Tile) -> Work:
    high, wide = tile.rows * tile.threads_r, tile.columns * tile.threads_c
    groups = shape.batch * (shape.rows // high) * (shape.columns // wide)
    return Work(groups, _loads(shape, tile.rows, tile.columns), high + wide, _COPYING / shape.term_vector)


def _loads(shape: _Shape, rows: int, columns: int) -> float:
    """Return a thread's loads from workgroup memory for one term of the sum."""
    along_rows = rows / shape.term_vector if shape.rows_along_terms else rows / vector_width(rows)
    width = shape.term_vector if shape.columns_along_terms else vector_width(columns)
    return along_rows + columns / width


def _shared_bytes(shape: _Shape, tile: Tile, step: int) -> int:
    return (tile.rows * tile.threads_r + tile.columns * tile.threads_c) * step * shape.found.itemsize


def _fits(shape: _Shape, limits: Limits, values: Values) -> bool:
    tile = Tile(values["threads_r"], values["threads_c"], values["thread_rows"], values["thread_columns"])
    return (
        shape.divides(tile)
        and tile.rows * tile.columns <= 2 * _MOST_RESULTS
        and tile.threads <= limits.threads
        and values["step"] % shape.term_vector == 0
        and values["step"] % (shape.term_vector * values["unroll"]) == 0
        and (not values["staged"] or _shared_bytes(shape, tile, values["step"]) <= limits.shared_bytes)
    )


def _describe(shape: _Shape, limits: Limits, values: Values) -> Quantities:
    tile = Tile(values["threads_r"], values["threads_c"], values["thread_rows"], values["thread_columns"])
    vector = vector_width(tile.columns)
    statements = tile.rows * tile.columns // vector * values["unroll"] * shape.term_vector
    shared_bytes = _shared_bytes(shape, tile, values["step"]) if values["staged"] else 0
    return quantities(tile, _work(shape, tile), limits, vector, statements, shared_bytes)


def _build(shape: _Shape, schedule: Schedule, values: Values) -> None:
    found = shape.found
    block = schedule.get_sblock(found.block)
    rows, columns = values["thread_rows"], values["thread_columns"]
    high, wide = values["threads_r"], values["threads_c"]
    vector, depth = vector_width(columns), shape.term_vector
    copies: list[SBlockRV] = []
    if values["staged"]:
        for operand in (found.rows_operand, found.columns_operand):
            copies.append(copy_operand(schedule, block, operand.read))
    else:
        inline_producers(schedule, block)
    result = result_in_registers(schedule, block)
    flatten_results(schedule, block, result, found, shape.row_axes, shape.column_axes)

    loops = schedule.get_loops(block)
    batch, row, column, term = (
        [loops[axis] for axis in axes] for axes in (shape.batch_axes, shape.row_axes, shape.column_axes, found.terms)
    )
    units = [loops[axis] for axis in found.units]
    schedule.reorder(*units, *batch, *row, *column, *term)
    outer = schedule.fuse(*units, *batch) if units or batch else None
    i, j, k = (schedule.fuse(*axes) if len(axes) > 1 else axes[0] for axes in (row, column, term))
    group_r, thread_r, own_r = schedule.split(i, [None, high, rows])
    group_c, thread_c, own_c, lane = schedule.split(j, [None, wide, columns // vector, vector])
    step, unrolled = values["step"], values["unroll"]
    chunk, within, repeated, part = schedule.split(k, [None, step // (depth * unrolled), unrolled, depth])
    heads = [outer] if outer is not None else []
    schedule.reorder(*heads, group_r, group_c, thread_r, thread_c, chunk, within, repeated, part, own_r, own_c, lane)
    group_y = schedule.fuse(*heads, group_r)
    for loop, axis in ((group_y, "blockIdx.y"), (group_c, "blockIdx.x")):
        schedule.bind(loop, axis)
    schedule.bind(thread_r, "threadIdx.y")
    schedule.bind(thread_c, "threadIdx.x")
    if copies:
        _stage(schedule, copies[0], chunk, (high, wide), depth if shape.rows_along_terms else vector_width(rows))
        _stage(schedule, copies[1], chunk, (high, wide), depth if shape.columns_along_terms else vector)
        for copy, operand, axes, tile in (
            (copies[0], found.rows_operand, shape.row_axes, (rows, high)),
            (copies[1], found.columns_operand, shape.column_axes, (columns, wide)),
        ):
            lay_out(schedule, copy, found, operand, axes, found.terms, tile, depth)

    store_vectors(schedule, result, thread_c, _OUTER - 1, vector)
    schedule.vectorize(lane)
    for loop in (repeated, part, own_r, own_c):
        schedule.unroll(loop)
    start_sums(schedule, block, chunk, _OUTER - 1)


def _stage(schedule: Schedule, copy: SBlockRV, at: LoopRV, threads: tuple[int, int], vector: int) -> None:
    """Copy a tile by all threads of the workgroup, ``vector`` elements at a time."""
    schedule.compute_at(copy, at, preserve_unit_loops=True)
    tile = schedule.get_loops(copy)[_OUTER:]
    high, wide = threads
    elements = schedule.fuse(*tile) if len(tile) > 1 else tile[0]
    rounds, y, x, lanes = schedule.split(elements, [None, high, wide, vector])
    schedule.bind(y, "threadIdx.y")
    schedule.bind(x, "threadIdx.x")
    if vector > 1:
        schedule.vectorize(lanes)
    if int(schedule.get(rounds).extent) <= _MOST_UNROLLED:
        schedule.unroll(rounds)


_OUTER = 5
"""Loops around a copy: two of workgroups, two of threads, and the steps of the sum."""

_MOST_UNROLLED = 4
"""Most rounds of a copy that are written out, so that their loads wait together."""
