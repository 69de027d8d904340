"""Convolutions with filters larger than 1 × 1, as sums over a window.

A workgroup computes a tile of output channels × pixels. In steps over the input channels it copies the pixels that the
tile's windows cover, padding included, and the filters to workgroup memory, or each thread copies its own to registers.
Each thread then holds its filters' and its pixels' products in registers: a pixel that several places of the window
need is read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import IRModule, tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.sym import Analyzer

from .contraction import Contraction, find_contraction, is_axis
from .inlining import copy_operand, result_in_registers, start_sums
from .layouts import lay_out
from .rule import Limits, Parameter, Quantities, RuleSpace, Values
from .tiles import Tile, Work, best_tile, divisors, quantities, vector_width

_MOST_RESULTS = 64
"""Most results of a thread: more leave too few registers for a second wave on many GPUs."""

_MOST_STATEMENTS = 96
"""Most multiply-adds of vectors that the inner loop writes out, a row of a 3 × 3 window: a longer text compiles for
longer and gains little (share of multiply-adds on RDNA 3: 0.88 for a row, 0.91 for the window)."""

_COPYING = 6.0
"""Instructions that copying an element takes: load, choice of padding, store, addresses and clamps."""

_STEP = 8
"""Most input channels of a step by default."""


def conv2d(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of a convolution, None for other kernels."""
    found = find_contraction(Schedule(module))
    shape = None if found is None or found.plain else _Shape.of(found)
    if shape is None:
        return None
    choices = list(_choices(shape, limits.modest))
    best = best_tile(((choice.tile, choice.work) for choice in choices), limits)
    chosen = next((choice for choice in choices if choice.tile is best), None)
    if chosen is None:
        return None
    parameters = (
        Parameter("thread_rows", divisors(shape.rows, 16), chosen.tile.rows),
        Parameter("thread_lines", divisors(shape.lines, 4), 1),
        Parameter("thread_columns", divisors(shape.columns, 16), chosen.tile.columns),
        Parameter("threads_r", divisors(shape.rows, 64), chosen.tile.threads_r),  # WebGPU's most in z
        Parameter("threads_h", divisors(shape.lines, 32), chosen.threads_h),
        Parameter("threads_w", divisors(shape.columns, 32), chosen.threads_w),
        Parameter("step", divisors(shape.channels, 32), chosen.step if limits.shares else 1),
        Parameter("staged", (0, 1), int(limits.shares)),
    )
    sizes = {
        "batch": shape.groups,
        "rows": shape.rows,
        "lines": shape.lines,
        "columns": shape.columns,
        "terms": shape.channels * shape.window,
        "window": shape.window,
    }
    fits, build, describe = (
        partial(_fits, shape, limits),
        partial(_build, shape),
        partial(_describe, shape, limits.of_unknown_gpu),
    )
    return RuleSpace("conv2d", module, parameters, fits, build, sizes, describe)


@dataclass(frozen=True)
class _Shape:
    """The sizes of a convolution; ``window`` its height and width, ``strides`` how far it moves per pixel."""

    found: Contraction
    row_axis: int
    line_axis: int
    column_axis: int
    channel_axes: tuple[int, ...]
    window_axes: tuple[int, ...]
    batch_axes: tuple[int, ...]
    strides: tuple[int, int]

    @classmethod
    def of(cls, found: Contraction) -> _Shape | None:
        """Return the shape, None where the contraction is no convolution with one side of plain indices."""
        plain = all(isinstance(index, tirx.Var | tirx.IntImm) for index in found.rows_operand.indices)
        if not plain or not found.rows or len(found.columns) < 2:
            return None
        indices = found.columns_operand.indices
        channels = tuple(a for a in found.terms if any(is_axis(index, found.axes[a]) for index in indices))
        window = tuple(a for a in found.terms if a not in channels)
        line, column = found.columns[-2:]
        if not window:
            return None
        strides = [_stride(indices, found, axis) for axis in (line, column)]
        outer = (*found.batch, *found.rows[:-1], *found.columns[:-2])
        return cls(found, found.rows[-1], line, column, channels, window, outer, (strides[0], strides[1]))

    @property
    def rows(self) -> int:
        return self.found.extents[self.row_axis]

    @property
    def lines(self) -> int:
        return self.found.extents[self.line_axis]

    @property
    def columns(self) -> int:
        return self.found.extents[self.column_axis]

    @property
    def channels(self) -> int:
        return self.found.size(self.channel_axes)

    @property
    def window(self) -> int:
        """Places of the window."""
        return self.found.size(self.window_axes)

    @property
    def groups(self) -> int:
        """Images, and other loops that every tile repeats."""
        return self.found.size(self.batch_axes)

    def covered(self, lines: int, columns: int) -> int:
        """Return the input pixels of one channel that the windows of a tile cover."""
        extents = [self.found.extents[axis] for axis in self.window_axes]
        high, wide = extents if len(extents) == 2 else (1, extents[0])
        vertical, horizontal = self.strides
        return ((lines - 1) * vertical + high) * ((columns - 1) * horizontal + wide)


@dataclass(frozen=True)
class _Choice:
    tile: Tile
    work: Work
    threads_h: int
    threads_w: int
    step: int


def _choices(shape: _Shape, limits: Limits) -> Iterator[_Choice]:
    for rows in divisors(shape.rows, 8):
        for columns in divisors(shape.columns, 8):
            loads = (shape.window * rows / vector_width(rows) + shape.covered(1, columns)) / shape.window
            for threads_r in divisors(shape.rows // rows, 16):
                for threads_w in divisors(shape.columns // columns, 16):
                    for threads_h in divisors(shape.lines, 16):
                        tile = Tile(threads_r, threads_h * threads_w, rows, columns)
                        if tile.threads > limits.threads:
                            continue
                        high, pixels = rows * threads_r, shape.covered(threads_h, columns * threads_w)
                        bytes_ = (high * shape.window + pixels) * shape.found.itemsize
                        steps = [n for n in divisors(shape.channels, _STEP) if n * bytes_ <= limits.shared_bytes]
                        if not steps:
                            continue
                        across = shape.columns // (columns * threads_w)
                        groups = shape.groups * (shape.rows // high) * (shape.lines // threads_h) * across
                        work = Work(groups, loads, high + pixels / shape.window, _COPYING)
                        yield _Choice(tile, work, threads_h, threads_w, steps[-1])


def _fits(shape: _Shape, limits: Limits, values: Values) -> bool:
    high, lines, columns = _group(values)
    threads = values["threads_r"] * values["threads_h"] * values["threads_w"]
    results = values["thread_rows"] * values["thread_lines"] * values["thread_columns"]
    return (
        shape.rows % high == 0
        and shape.lines % lines == 0
        and shape.columns % columns == 0
        and results <= 2 * _MOST_RESULTS
        and threads <= limits.threads
        and _shared_bytes(shape, values) <= limits.shared_bytes
    )


def _group(values: Values) -> tuple[int, int, int]:
    """Return the output channels, lines and columns that a workgroup computes."""
    return (
        values["thread_rows"] * values["threads_r"],
        values["thread_lines"] * values["threads_h"],
        values["thread_columns"] * values["threads_w"],
    )


def _shared_bytes(shape: _Shape, values: Values) -> int:
    if not values["staged"]:
        return 0
    high, lines, columns = _group(values)
    return values["step"] * (high * shape.window + shape.covered(lines, columns)) * shape.found.itemsize


def _describe(shape: _Shape, limits: Limits, values: Values) -> Quantities:
    high, lines, columns = _group(values)
    rows, own = values["thread_rows"], values["thread_lines"] * values["thread_columns"]
    vector = vector_width(values["thread_columns"])
    pixels = shape.covered(values["thread_lines"], values["thread_columns"])
    loads = rows / vector_width(rows) + pixels / shape.window
    groups = shape.groups * (shape.rows // high) * (shape.lines // lines) * (shape.columns // columns)
    staged = high + shape.covered(lines, columns) / shape.window
    tile = Tile(values["threads_r"], values["threads_h"] * values["threads_w"], rows, own)
    work = Work(groups, loads, staged, _COPYING)
    return quantities(tile, work, limits, vector, rows * own // vector * shape.window, _shared_bytes(shape, values))


def _build(shape: _Shape, schedule: Schedule, values: Values) -> None:
    found = shape.found
    block = schedule.get_sblock(found.block)
    rows, lines, columns = values["thread_rows"], values["thread_lines"], values["thread_columns"]
    threads = (values["threads_r"], values["threads_h"], values["threads_w"])
    vector = vector_width(columns)
    scope = "shared" if values["staged"] else "local"
    filters = copy_operand(schedule, block, found.rows_operand.read, scope)
    pixels = copy_operand(schedule, block, found.columns_operand.read, scope)
    result = result_in_registers(schedule, block)

    loops = schedule.get_loops(block)
    outer = [loops[axis] for axis in (*found.units, *shape.batch_axes)]
    row, line, column = loops[shape.row_axis], loops[shape.line_axis], loops[shape.column_axis]
    channel = [loops[axis] for axis in shape.channel_axes]
    window = [loops[axis] for axis in shape.window_axes]
    schedule.reorder(*outer, row, line, column, *channel, *window)
    heads = [schedule.fuse(*outer) if len(outer) > 1 else outer[0]] if outer else []
    group_r, thread_r, own_r = schedule.split(row, [None, values["threads_r"], rows])
    group_h, thread_h, own_h = schedule.split(line, [None, values["threads_h"], lines])
    group_w, thread_w, own_w, lane = schedule.split(column, [None, values["threads_w"], columns // vector, vector])
    heads_c = schedule.fuse(*channel) if len(channel) > 1 else channel[0] if channel else schedule.add_unit_loop(block)
    chunk, within = schedule.split(heads_c, [None, values["step"]])
    inner = [within, *window, own_r, own_h, own_w, lane]
    schedule.reorder(*heads, group_r, group_h, group_w, thread_r, thread_h, thread_w, chunk, *inner)
    schedule.bind(schedule.fuse(*heads, group_r), "blockIdx.y")
    schedule.bind(schedule.fuse(group_h, group_w), "blockIdx.x")
    # An axis for each: addresses without shifts and masks, whose bounds a browser can tell.
    for loop, axis in ((thread_r, "threadIdx.z"), (thread_h, "threadIdx.y"), (thread_w, "threadIdx.x")):
        schedule.bind(loop, axis)
    if values["staged"]:
        _stage_pixels(schedule, pixels, chunk, threads)
        _stage_filters(schedule, filters, chunk, threads, shape, rows)
        terms = (*shape.channel_axes, *shape.window_axes)
        lay_out(schedule, filters, found, found.rows_operand, (shape.row_axis,), terms, (rows, values["threads_r"]))
    else:
        for copy in (filters, pixels):
            _keep(schedule, copy, [within, *window[:-1]])

    schedule.reverse_compute_at(result, thread_w, preserve_unit_loops=True)
    *over, last = schedule.get_loops(result)[_OUTER - 1 :]
    kept, lanes = schedule.split(last, [None, vector])
    schedule.vectorize(lanes)
    for loop in (*over, kept):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    statements = rows * lines * columns // vector
    for loop in (own_w, own_h, own_r, *reversed(window)):
        if loop in window:
            statements *= int(schedule.get(loop).extent)
        if statements > _MOST_STATEMENTS:
            break
        schedule.unroll(loop)
    start_sums(schedule, block, chunk, _OUTER - 1)


_OUTER = 6
"""Loops around a copy: two of workgroups, three of threads, and the steps over channels."""


def _stage_pixels(schedule: Schedule, copy: SBlockRV, at: LoopRV, threads: tuple[int, int, int]) -> None:
    """Copy the covered pixels, one channel after the other: where a thread's pixel lies is the same in each."""
    schedule.compute_at(copy, at, preserve_unit_loops=True)
    tile = schedule.get_loops(copy)[_OUTER:]
    elements = schedule.fuse(*tile[-2:]) if len(tile) > 1 else tile[-1]
    _share(schedule, elements, threads, unroll=True)


def _stage_filters(
    schedule: Schedule, copy: SBlockRV, at: LoopRV, threads: tuple[int, int, int], shape: _Shape, rows: int
) -> None:
    """Copy the filters, those of a vector of output channels at a time; neighbours take neighbouring terms."""
    schedule.compute_at(copy, at, preserve_unit_loops=True)
    tile = schedule.get_loops(copy)[_OUTER:]
    vector = vector_width(rows)
    filters, *terms = tile
    if int(schedule.get(filters).extent) % vector or not terms:
        _share(schedule, schedule.fuse(*tile) if len(tile) > 1 else tile[0], threads, unroll=False)
        return
    groups, lanes = schedule.split(filters, [None, vector])
    schedule.reorder(groups, *terms, lanes)
    if vector > 1:
        schedule.vectorize(lanes)
    _share(schedule, schedule.fuse(groups, *terms), threads, unroll=False)


def _share(schedule: Schedule, elements: LoopRV, threads: tuple[int, int, int], *, unroll: bool) -> None:
    """Give the iterations of a loop to all threads of the workgroup."""
    rounds, *shared = schedule.split(elements, [None, *threads])
    for loop, axis in zip(shared, "zyx", strict=True):
        schedule.bind(loop, f"threadIdx.{axis}")
    if unroll and int(schedule.get(rounds).extent) <= _MOST_ROUNDS:
        schedule.unroll(rounds)


def _keep(schedule: Schedule, copy: SBlockRV, around: list[LoopRV]) -> None:
    """Copy what a thread needs of an operand to its registers, in the last of the loops ``around`` it."""
    schedule.compute_at(copy, around[-1], preserve_unit_loops=True)
    for loop in schedule.get_loops(copy)[_OUTER + len(around) :]:
        schedule.unroll(loop)


_MOST_ROUNDS = 4
"""Most rounds of a copy that are written out, so that their loads wait together."""


def _stride(indices: tuple[Any, ...], found: Contraction, axis: int) -> int:
    """Return how far one step of ``axis`` moves the operand's index."""
    analyzer = Analyzer()
    for n, other in enumerate(found.axes):
        analyzer.bind(other, tirx.const(int(n == axis), str(other.ty.dtype)))
    moved = [analyzer.simplify(index) for index in indices]
    return max(int(value.value) for value in moved if isinstance(value, tirx.IntImm))
