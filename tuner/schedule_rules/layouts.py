"""How tiles lie: an operand's in workgroup memory as threads read it, results in registers one by one."""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from .contraction import Contraction, Operand, is_axis
from .index_maps import flat_runs
from .tiles import vector_width


def lay_out(
    schedule: Schedule,
    copy: SBlockRV,
    found: Contraction,
    operand: Operand,
    axes: tuple[int, ...],
    terms: tuple[int, ...],
    tile: tuple[int, int],
    depth: int = 1,
) -> None:
    """Lay a copy out: terms of the sum outside, then a thread's own elements, then threads, then a vector.

    Neighbouring threads so read neighbouring vectors, and a thread's reads lie at constant distances.

    Args:
        schedule: the schedule.
        copy: the block that copies the operand.
        found: the contraction.
        operand: the operand that is copied.
        axes: the axes of the operand's side that are tiled, outermost first.
        terms: the axes of the sum, outermost first.
        tile: a thread's own elements, and threads, of that side.
        depth: the vector along the sum, where the operand's memory runs along it.
    """
    own, threads = tile
    along_terms = found.runs_along(operand, terms)
    vector = depth if along_terms and depth > 1 else vector_width(own)

    def place(*indices: Any) -> list[Any]:
        side, term = (_linear(indices, operand, found, chosen) for chosen in (axes, terms))
        others = [
            index
            for index, known in zip(indices, operand.indices, strict=True)
            if not any(is_axis(known, found.axes[axis]) for axis in (*axes, *terms))
        ]
        group, thread = side // (own * threads), side // own % threads
        if along_terms and depth > 1:
            return [*others, group, term // vector, side % own, thread, term % vector]
        return [*others, term, group, side // vector % (own // vector), thread, side % vector]

    schedule.transform_layout(copy, ("write", 0), place)


def flatten_results(
    schedule: Schedule, block: SBlockRV, result: SBlockRV, found: Contraction, *sides: tuple[int, ...]
) -> None:
    """Give results one dimension for the axes of each side that are tiled as one loop; before loops are split.

    Places of a fused loop that is split again are quotients and remainders. TVM does not always see that a thread's
    lie next to each other, and would then give it registers for the results of many.

    Args:
        schedule: the schedule.
        block: the block that computes the contraction.
        result: the block that stores it. Nothing changes where it does not run over the places of the contraction.
        found: the contraction.
        sides: the axes of a side that are tiled as one loop, outermost first.
    """
    merged = [[_place_of(found.output, found.axes[axis]) for axis in axes] for axes in sides if len(axes) > 1]
    extents = [int(extent) for extent in schedule.get(block).body.buffer.ty.shape]
    stored = [int(axis.dom.extent) for axis in schedule.get(result).iter_vars]
    within = {dim for dims in merged for dim in dims}
    if not merged or len(stored) != len(extents) or any(stored[dim] != extents[dim] for dim in within):
        return
    runs = sorted([*merged, *([dim] for dim in range(len(extents)) if dim not in within)])
    schedule.transform_layout(block, ("write", 0), flat_runs(extents, runs))
    schedule.transform_block_layout(result, flat_runs(stored, runs))


def _place_of(indices: tuple[Any, ...], axis: Any) -> int:
    return next(dim for dim, index in enumerate(indices) if is_axis(index, axis))


def _linear(indices: tuple[Any, ...], operand: Operand, found: Contraction, axes: tuple[int, ...]) -> Any:
    total: Any = 0
    for axis in axes:
        total = total * found.extents[axis] + indices[operand.dims_of(found.axes[axis])[0]]
    return total
