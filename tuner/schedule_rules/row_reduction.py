"""Reductions over rows, and what is computed from them, in one dispatch: what softmax and the norms have in common.

A kernel of this kind reduces rows of consecutive elements, perhaps several times, and then computes every element from
its row's results. A workgroup has one row, or several short ones. A thread takes vectors of a row at distances, so that
neighbouring threads read neighbouring vectors, and reduces what it takes; threads exchange their results through
workgroup memory, where one level, or two for many threads, gives every thread the row's result. Rows that fit registers
are read once; longer ones are read again for every pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import IRModule, tirx
from tvm.ir import Range
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.sym import Analyzer

from .index_maps import flat_index, flat_runs, rows_and_elements
from .row_groups import FAN, RowKernel, can_keep, default_group, describe, fits, second_exchange
from .rule import Limits, Parameter, RuleSpace, Values
from .tiles import divisors


def find_row_kernel(schedule: Schedule) -> RowKernel | None:
    """Return what the unscheduled kernel reduces; None where it is something else."""
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    names = [str(schedule.get(block).name_hint) for block in blocks]
    sizes = [_sizes(schedule.get(block)) for block in blocks]
    if any(size is None for size in sizes):
        return None
    reducing = [schedule.get(block).init is not None for block in blocks]
    shapes = {size for size, yes in zip(sizes, reducing, strict=True) if yes}
    outputs = [n for n, block in enumerate(blocks) if not schedule.get_consumers(block)]
    if len(shapes) != 1 or len(outputs) != 1 or reducing[outputs[0]]:
        return None
    ((rows, elements),) = shapes  # type: ignore[misc]
    output = outputs[0]
    if not all(_reduces_rows(schedule.get(block)) for block, yes in zip(blocks, reducing, strict=True) if yes):
        return None
    if elements == 1 or sizes[output] != (rows * elements, 1):
        return None
    after = [False] * len(blocks)
    kinds: dict[str, list[str]] = {kind: [] for kind in ("reductions", "per_row", "between", "before", "inlined")}
    for n, block in enumerate(blocks):
        producers = {str(schedule.get(p).name_hint) for p in schedule.get_producers(block)}
        after[n] = any(reducing[k] or after[k] for k in range(n) if names[k] in producers)
        consumers = {str(schedule.get(c).name_hint) for c in schedule.get_consumers(block)}
        feeds = any(reducing[k] for k in range(n, len(blocks)) if names[k] in consumers)
        if n == output:
            continue
        kind = "inlined"
        if reducing[n]:
            kind = "reductions"
        elif sizes[n] == (rows, 1) and after[n]:
            kind = "per_row"
        elif sizes[n] == (rows * elements, 1) and feeds:
            kind = "between" if after[n] else "before"
        kinds[kind].append(names[n])
    return RowKernel(
        **{kind: tuple(found) for kind, found in kinds.items()},
        stages=tuple(name for n, name in enumerate(names) if n != output),
        output=names[output],
        combiners=tuple(_combiner(schedule.get(blocks[names.index(name)])) for name in kinds["reductions"]),
        rows=rows,
        elements=elements,
        itemsize=4 if str(schedule.get(blocks[output]).body.value.ty.dtype) == "float32" else 2,
    )


def _sizes(block: Any) -> tuple[int, int] | None:
    """Return the spatial iterations of a block and those that it reduces; None where they are not rows in order."""
    kinds = [int(axis.iter_type) for axis in block.iter_vars]
    extents = [axis.dom.extent for axis in block.iter_vars]
    if kinds != sorted(kinds) or not all(isinstance(extent, tirx.IntImm) for extent in extents):
        return None
    spatial = math.prod(int(e) for e, kind in zip(extents, kinds, strict=True) if kind == 0)
    reduced = math.prod(int(e) for e, kind in zip(extents, kinds, strict=True) if kind != 0)
    return spatial, reduced


def _reduces_rows(block: Any) -> bool:
    """Return whether a reduction takes the elements of each result from one stretch of a buffer."""
    axes = [(axis.var, int(axis.dom.extent)) for axis in block.iter_vars]
    analyzer = Analyzer()
    for axis, extent in axes:
        analyzer.bind(axis, Range(0, extent))
    wanted = flat_index([axis for axis, _ in axes], [extent for _, extent in axes])
    for read in block.reads:
        shape = [int(extent) for extent in read.source.ty.shape]
        if math.prod(shape) == math.prod(extent for _, extent in axes):
            place = flat_index([part.min for part in read.region], shape)
            if not analyzer.can_prove_equal(place, wanted):
                return False
    return True


def _combiner(block: Any) -> str:
    return type(block.body.value).__name__ if isinstance(block.body, tirx.BufferStore) else ""


def row_space(rule: str, module: IRModule, found: RowKernel, limits: Limits) -> RuleSpace:
    """Return the space of a kernel that reduces rows, with defaults for an unknown GPU."""
    threads, rows = default_group(found, limits)
    keeps = can_keep(found, threads, rows)
    parameters = (
        Parameter("threads", divisors(found.vectors, limits.threads), threads),
        Parameter("rows", divisors(found.rows, 32), rows),
        Parameter("kept", (0, 1), int(keeps)),
        Parameter("fan", (8, 16, 32, 64), FAN),
        Parameter("unroll", (1, 2, 4, 8), 4),
    )

    def build(schedule: Schedule, values: Values) -> None:
        _Builder(found, schedule, values).build()

    sizes = {"rows": found.rows, "columns": found.elements, "reductions": len(found.reductions)}
    tell = partial(describe, found, limits.of_unknown_gpu)
    return RuleSpace(rule, module, parameters, partial(fits, found, limits), build, sizes, tell)


_APART = 64
"""Neighbouring threads that take a stretch of their own: the largest common wave."""


class _Builder:
    def __init__(self, found: RowKernel, schedule: Schedule, values: Values) -> None:
        self._found = found
        self._schedule = schedule
        self._threads, self._rows = values["threads"], values["rows"]
        self._kept, self._fan, self._unroll = bool(values["kept"]), values["fan"], values["unroll"]
        self._stages: list[tuple[SBlockRV, Callable[[SBlockRV], None]]] = []

    def build(self) -> None:
        schedule, found = self._schedule, self._found
        output = schedule.get_sblock(found.output)
        inlined = found.inlined if self._kept else (*found.inlined, *found.before, *found.between)
        for name in inlined:
            schedule.compute_inline(schedule.get_sblock(name))
        stages = [name for name in found.stages if name not in inlined]
        for name in (*stages, found.output):
            self._flatten_axes(schedule.get_sblock(name))
        for name in stages:
            self._flatten_results(schedule.get_sblock(name))
        if self._kept:
            self._cache_inputs(stages)
        for name in stages:
            block = schedule.get_sblock(name)
            if name in found.reductions:
                self._exchange(block)
            else:
                schedule.set_scope(block, 0, "local")
                self._stages.append((block, self._bind_row if name in found.per_row else self._bind_elements))
        row, element = schedule.get_loops(output)
        group, row = schedule.split(row, [None, self._rows])
        schedule.bind(group, "blockIdx.x")
        self._bind(row, element, apart=not self._kept)
        for block, bind in reversed(self._stages):
            schedule.compute_at(block, group, preserve_unit_loops=True)
            bind(block)

    # Rows and elements.

    def _flatten_axes(self, block: SBlockRV) -> None:
        """Make the axes of a block rows and elements."""
        held = self._schedule.get(block)
        extents = [int(axis.dom.extent) for axis in held.iter_vars]
        if held.init is None:
            place = rows_and_elements(extents, self._found.rows)
        else:
            spatial = sum(int(axis.iter_type) == 0 for axis in held.iter_vars)
            place = flat_runs(extents, [range(spatial), range(spatial, len(extents))])
        self._schedule.transform_block_layout(block, place)

    def _flatten_results(self, block: SBlockRV) -> None:
        """Make the dimensions of what a block writes rows and elements."""
        for n, region in enumerate(self._schedule.get(block).writes):
            shape = [int(extent) for extent in region.source.ty.shape]
            self._schedule.transform_layout(block, ("write", n), rows_and_elements(shape, self._found.rows))

    def _cache_inputs(self, stages: list[str]) -> None:
        """Keep the elements that a reduction reads from a buffer of the kernel."""
        schedule, found = self._schedule, self._found
        arguments, size = list(schedule.mod["main"].params), found.rows * found.elements
        for name in found.reductions:
            for n, region in enumerate(schedule.get(schedule.get_sblock(name)).reads):
                shape = [int(extent) for extent in region.source.ty.shape]
                if math.prod(shape) < size or not any(region.source.same_as(a) for a in arguments):
                    continue
                readers = [
                    schedule.get_sblock(other)
                    for other in (*stages, found.output)
                    if any(
                        read.source.same_as(region.source) for read in schedule.get(schedule.get_sblock(other)).reads
                    )
                ]
                copy = schedule.cache_read(schedule.get_sblock(name), n, "local", consumer_blocks=readers)
                self._flatten_axes(copy)
                self._flatten_results(copy)
                self._stages.append((copy, self._bind_elements))

    # Reductions.

    def _exchange(self, block: SBlockRV) -> None:
        """Split a reduction into what a thread reduces, and up to two exchanges in workgroup memory."""
        schedule, vector = self._schedule, self._found.vector
        results = range(len(schedule.get(block).writes))
        _, element = schedule.get_loops(block)
        _, own = schedule.split(element, [None, self._threads * vector])
        lanes = schedule.rfactor(own, 1)
        for n in results:
            schedule.set_scope(lanes, n, "local")
        self._stages.append((lanes, self._bind_lanes))
        if self._threads > 1:
            own, _ = schedule.split(schedule.get_loops(block)[-1], [self._threads, vector])
            self._share(schedule.rfactor(own, 1))
        if second := second_exchange(self._threads, self._fan):
            # Threads next to each other read places next to each other.
            _, own = schedule.split(schedule.get_loops(block)[-1], [None, second])
            self._share(schedule.rfactor(own, 1))
        for n in results:
            schedule.set_scope(block, n, "local")
        self._stages.append((block, self._bind_part))

    def _share(self, part: SBlockRV) -> None:
        """Store what threads have combined in workgroup memory."""
        results = range(len(self._schedule.get(part).writes))
        for n in results:
            self._schedule.set_scope(part, n, "shared")
        copies = [self._schedule.cache_write(part, n, "local") for n in results]
        self._stages.append((part, self._bind_part))
        self._stages += [(copy, self._bind_copy) for copy in copies]

    # Loops.

    def _bind(self, row: LoopRV, element: LoopRV, *, apart: bool = False) -> None:
        """Give the elements of a row to threads, in vectors.

        With ``apart`` a wave has a stretch of its own: its threads read other elements than in the reductions. Else
        Mesa unrolls short loops of both, takes the second reads for the first, and spills what it keeps.
        """
        schedule = self._schedule
        if apart and self._threads % _APART == 0:
            vectors, lane = schedule.split(element, [None, self._found.vector])
            wave, turn, thread = schedule.split(vectors, [self._threads // _APART, None, _APART])
            schedule.reorder(row, wave, thread, turn, lane)
            thread = schedule.fuse(wave, thread)
        else:
            turn, thread, lane = schedule.split(element, [None, self._threads, self._found.vector])
            schedule.reorder(row, thread, turn, lane)
        self._bind_threads(row, thread)
        self._unrolled(turn)
        schedule.vectorize(lane)

    def _bind_threads(self, row: LoopRV, thread: LoopRV | None) -> None:
        self._schedule.bind(row, "threadIdx.y")
        if thread is not None:
            self._schedule.bind(thread, "threadIdx.x")

    def _unrolled(self, turn: LoopRV) -> None:
        if not self._kept:
            turns = int(self._schedule.get(turn).extent)
            _, turn = self._schedule.split(turn, [None, divisors(turns, self._unroll)[-1]])
        self._schedule.unroll(turn)

    def _bind_elements(self, block: SBlockRV) -> None:
        _, row, element = self._schedule.get_loops(block)
        self._bind(row, element)

    def _bind_row(self, block: SBlockRV) -> None:
        _, row = self._schedule.get_loops(block)
        self._bind_threads(row, None)

    def _bind_lanes(self, block: SBlockRV) -> None:
        schedule = self._schedule
        own, row, turn = self._schedule.get_loops(block)[1:]
        thread, lane = schedule.split(own, [None, self._found.vector])
        schedule.reorder(row, thread, turn, lane)
        self._bind_threads(row, thread)
        self._unrolled(turn)
        schedule.vectorize(lane)
        start = schedule.decompose_reduction(block, schedule.get_loops(block)[3])
        schedule.vectorize(schedule.get_loops(start)[-1])

    def _bind_part(self, block: SBlockRV) -> None:
        """Combine what several threads hold."""
        schedule = self._schedule
        *kept, terms, row = schedule.get_loops(block)[1:]
        schedule.reorder(row, *kept, terms)
        self._bind_threads(row, self._some_threads(kept[0]) if kept else None)
        schedule.unroll(terms)
        schedule.decompose_reduction(block, terms)

    def _some_threads(self, loop: LoopRV) -> LoopRV:
        """Return a loop over all threads of a row, of which the first ones work."""
        if int(self._schedule.get(loop).extent) == self._threads:
            return loop
        return self._schedule.split(loop, [None, self._threads])[1]

    def _bind_copy(self, block: SBlockRV) -> None:
        row, thread = self._schedule.get_loops(block)[1:]
        self._bind_threads(row, self._some_threads(thread))
