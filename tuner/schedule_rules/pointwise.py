"""Kernels without a reduction: which axes of their result count as one, and along which one each read runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvm import IRModule, tirx
from tvm.ir import Range
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvm.sym import Analyzer

from .index_maps import flat_index, flat_runs
from .inlining import inline_producers


@dataclass(frozen=True)
class Pointwise:
    """A kernel without a reduction, all of it inlined into the block ``output``.

    ``groups`` are runs of axes that each read and the write pass through as through one; ``extents`` are the iterations
    of each. ``axes`` is the number of axes. ``across`` has the reads, by number, that are consecutive along another
    group than the last one, and which it is.
    """

    output: str
    axes: int
    groups: tuple[tuple[int, ...], ...]
    extents: tuple[int, ...]
    across: dict[int, int]

    def inline(self, schedule: Schedule) -> SBlockRV:
        """Make the kernel one block whose axes are the groups, and return it."""
        output = schedule.get_sblock(self.output)
        inline_producers(schedule, output)
        extents = [int(axis.dom.extent) for axis in schedule.get(output).iter_vars]

        if len(self.groups) < self.axes:
            schedule.transform_block_layout(output, flat_runs(extents, self.groups))
        return output

    def cache(self, schedule: Schedule, output: SBlockRV, read: int) -> SBlockRV:
        """Copy what the inlined kernel reads to registers, the copy's axes and dimensions being groups too."""
        block = schedule.get(output)
        source = block.reads[read].source
        load = next(load for load in _loads(block.body.value) if load.source.same_as(source))
        runs: list[list[int]] = []
        known: list[list[int]] = []
        for n, index in enumerate(load.indices):
            used = [k for k, axis in enumerate(block.iter_vars) if _uses(index, axis.var)]
            if known and used == known[-1]:
                runs[-1].append(n)
            else:
                runs.append([n])
                known.append(used)
        place = flat_runs([int(extent) for extent in source.ty.shape], runs)
        copy = schedule.cache_read(output, read, "local")
        if any(len(run) > 1 for run in runs):
            schedule.transform_block_layout(copy, place)
            schedule.transform_layout(copy, ("write", 0), place)
        return copy


def find_pointwise(module: IRModule) -> Pointwise | None:
    """Return what the unscheduled kernel computes; None where it reduces, or has several results."""
    schedule = Schedule(module, error_render_level="none", enable_check=False)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    outputs = [block for block in blocks if not schedule.get_consumers(block)]
    if len(outputs) != 1 or any(schedule.get(block).init is not None for block in blocks):
        return None
    inline_producers(schedule, outputs[0])
    block = schedule.get(outputs[0])
    if not isinstance(block.body, tirx.BufferStore) or not block.iter_vars:
        return None
    if not all(isinstance(axis.dom.extent, tirx.IntImm) for axis in block.iter_vars):
        return None
    return _Accesses(block).found()


class _Accesses:
    def __init__(self, block: Any) -> None:
        self._block = block
        self._axes = [axis.var for axis in block.iter_vars]
        self._extents = [int(axis.dom.extent) for axis in block.iter_vars]
        self._analyzer = Analyzer()
        for axis, extent in zip(self._axes, self._extents, strict=True):
            if extent == 1:
                self._analyzer.bind(axis, tirx.const(0, str(axis.ty.dtype)))
            else:
                self._analyzer.bind(axis, Range(0, extent))

    def found(self) -> Pointwise:
        sources = [region.source for region in self._block.reads]
        loads = list(_loads(self._block.body.value))
        places = [self._place(load.source, load.indices) for load in loads]
        strides = [
            self._strides(place) for place in (self._place(self._block.body.buffer, self._block.body.indices), *places)
        ]
        opaque = {
            n for n, axis in enumerate(self._axes) if any(_uses(c, axis) for c in _outside(self._block.body.value))
        }
        groups: list[list[int]] = []
        for n, extent in enumerate(self._extents):
            if groups and (extent == 1 or self._one(groups[-1], n, strides, opaque)):
                groups[-1].append(n)
            else:
                groups.append([n])
        sizes = [math.prod(self._extents[n] for n in run) for run in groups]
        across: dict[int, int] = {}
        for load, stride in zip(loads, strides[1:], strict=True):
            steps = [k for k, run in enumerate(groups) if any(stride.get(n) == 1 for n in run)]
            turned = any(stride.get(n, 0) != 0 for n in groups[-1]) and None not in stride.values()
            if turned and steps and steps[-1] < len(groups) - 1:
                across[next(n for n, source in enumerate(sources) if source.same_as(load.source))] = steps[-1]
        return Pointwise(
            str(self._block.name_hint),
            len(self._axes),
            tuple(tuple(run) for run in groups),
            tuple(sizes),
            across,
        )

    def _one(self, run: list[int], following: int, strides: list[dict[int, int | None]], opaque: set[int]) -> bool:
        """Return whether every access passes from ``run`` to the next axis as within one."""
        last = next((n for n in reversed(run) if self._extents[n] > 1), None)
        if last is None:
            return True
        if last in opaque or following in opaque:
            return False
        for stride in strides:
            outer, inner = stride.get(last, 0), stride.get(following, 0)
            if outer is None or inner is None or outer != inner * self._extents[following]:
                return False
        return True

    def _place(self, buffer: Any, indices: Any) -> Any:
        return self._analyzer.simplify(
            tirx.const(0, "int64") + flat_index(list(indices), [int(extent) for extent in buffer.ty.shape])
        )

    def _strides(self, place: Any) -> dict[int, int | None]:
        """Return how far each axis moves a place; None for axes that do not move it evenly."""
        found: dict[int, int | None] = {}
        for factor, term in _terms(place, 1):
            for n, axis in enumerate(self._axes):
                if term is axis or (isinstance(term, tirx.Var) and term.same_as(axis)):
                    known = found.get(n, 0)
                    found[n] = None if known is None else known + factor
                elif _uses(term, axis):
                    found[n] = None
        return found


def _terms(value: Any, factor: int) -> Iterator[tuple[int, Any]]:
    """Yield the terms of a sum with their constant factors."""
    kind = type(value).__name__
    if kind in ("Add", "Sub"):
        yield from _terms(value.a, factor)
        yield from _terms(value.b, factor if kind == "Add" else -factor)
    elif kind == "Mul" and isinstance(value.b, tirx.IntImm):
        yield from _terms(value.a, factor * int(value.b))
    elif kind == "Cast":
        yield from _terms(value.value, factor)
    else:
        yield factor, value


def _uses(value: Any, axis: Any) -> bool:
    return bool(value.same_as(axis)) or any(_uses(child, axis) for child in _children(value))


def _loads(value: Any) -> Iterator[Any]:
    if type(value).__name__ == "TensorLoad":
        yield value
    for child in _children(value):
        yield from _loads(child)


def _outside(value: Any) -> Iterator[Any]:
    """Yield the conditions of an expression, and whatever else uses axes outside of indices."""
    if type(value).__name__ == "TensorLoad":
        return
    for child in _children(value):
        if isinstance(child, tirx.Var):
            yield child
        else:
            yield from _outside(child)


def _children(value: Any) -> Iterator[Any]:
    for name in ("a", "b", "condition", "true_value", "false_value", "value"):
        child = getattr(value, name, None)
        if child is not None and hasattr(child, "ty"):
            yield child
    for name in ("args", "indices"):
        yield from getattr(value, name, ())
