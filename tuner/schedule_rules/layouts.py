"""How an operand's tile lies in workgroup memory: as threads read it, vector by vector."""

from __future__ import annotations

from typing import Any

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from .contraction import Contraction, Operand, is_axis
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


def _linear(indices: tuple[Any, ...], operand: Operand, found: Contraction, axes: tuple[int, ...]) -> Any:
    total: Any = 0
    for axis in axes:
        total = total * found.extents[axis] + indices[operand.dims_of(found.axes[axis])[0]]
    return total
