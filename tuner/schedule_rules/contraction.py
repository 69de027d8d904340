"""Products and convolutions: a sum over two operands, with the loops that belong to each side.

A contraction is ``c[…] += a[…] * b[…]``. A spatial loop that moves only one operand belongs to its side; one that moves
both is a batch loop. The side of the output's last dimension is that of the *columns*, the other that of the *rows*:
threads take vectors of columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvm.sym import Analyzer


@dataclass(frozen=True)
class Operand:
    """One operand: the number of its read, and per dimension its index with loops of one iteration left out."""

    read: int
    indices: tuple[Any, ...]

    def dims_of(self, axis: Any) -> list[int]:
        """Return the dimensions whose index is exactly the variable ``axis``."""
        return [dim for dim, index in enumerate(self.indices) if is_axis(index, axis)]

    @property
    def last(self) -> Any:
        """The index of the last dimension that moves, None where none does."""
        moving = [index for index in self.indices if not isinstance(index, tirx.IntImm)]
        return moving[-1] if moving else None


@dataclass(frozen=True)
class Contraction:
    """A kernel's only reduction, as a sum over two operands.

    ``axes`` are the block's variables and ``extents`` their iterations. ``batch``, ``rows``, ``columns`` and ``terms``
    are numbers of axes with more than one iteration; ``units`` those with one. What follows takes ``together``
    neighbouring columns for one result, such as a value and its gate.
    """

    block: str
    axes: tuple[Any, ...]
    extents: tuple[int, ...]
    rows_operand: Operand
    columns_operand: Operand
    output: tuple[Any, ...]
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    terms: tuple[int, ...]
    units: tuple[int, ...]
    together: int
    itemsize: int

    @property
    def plain(self) -> bool:
        """Whether each index is one loop, as in a matrix product; a convolution adds loops."""
        return all(
            isinstance(index, tirx.Var | tirx.IntImm)
            for operand in (self.rows_operand, self.columns_operand)
            for index in operand.indices
        )

    def runs_along(self, operand: Operand, axes: tuple[int, ...]) -> bool:
        """Return whether the operand's memory runs along one of ``axes``."""
        return any(is_axis(operand.last, self.axes[axis]) for axis in axes)

    def size(self, axes: tuple[int, ...]) -> int:
        """Return the iterations of ``axes`` together."""
        total = 1
        for axis in axes:
            total *= self.extents[axis]
        return total


def find_contraction(schedule: Schedule) -> Contraction | None:
    """Return the contraction that the unscheduled kernel consists of; None where it is something else."""
    reductions = [rv for rv in schedule.get_child_blocks(schedule.get_sblock("root")) if _is_reduction(schedule, rv)]
    if len(reductions) != 1:
        return None
    block = schedule.get(reductions[0])
    product = _product(block)
    if product is None or len(schedule.get_loops(reductions[0])) != len(block.iter_vars):
        return None
    axes = [axis.var for axis in block.iter_vars]
    if not all(isinstance(axis.dom.extent, tirx.IntImm) for axis in block.iter_vars):
        return None
    extents = [int(axis.dom.extent) for axis in block.iter_vars]
    analyzer = Analyzer()
    for axis, extent in zip(axes, extents, strict=True):
        if extent == 1:
            analyzer.bind(axis, tirx.const(0, str(axis.ty.dtype)))
    sides = [tuple(analyzer.simplify(index) for index in load.indices) for load in product]
    output = tuple(analyzer.simplify(index) for index in block.body.indices)
    reads = [region.source for region in block.reads]
    if any(load.source not in reads for load in product) or product[0].source.same_as(product[1].source):
        return None
    operands = [Operand(reads.index(load.source), side) for load, side in zip(product, sides, strict=True)]
    used = [[any(_uses(index, axis) for index in side) for axis in axes] for side in sides]
    spatial = [axis.iter_type == 0 for axis in block.iter_vars]
    many = [extent > 1 for extent in extents]

    def numbers(chosen: list[bool]) -> tuple[int, ...]:
        return tuple(n for n, yes in enumerate(chosen) if yes and many[n])

    both = [a and b for a, b in zip(*used, strict=True)]
    alone = [
        numbers([s and u and not other for s, u, other in zip(spatial, used[n], used[1 - n], strict=True)])
        for n in (0, 1)
    ]
    last = [index for index in output if not isinstance(index, tirx.IntImm)]
    column_side = next((n for n in (1, 0) if last and any(is_axis(axes[a], last[-1]) for a in alone[n])), None)
    if column_side is None:
        return None
    return Contraction(
        block=str(block.name_hint),
        axes=tuple(axes),
        extents=tuple(extents),
        rows_operand=operands[1 - column_side],
        columns_operand=operands[column_side],
        output=output,
        batch=numbers([s and b for s, b in zip(spatial, both, strict=True)]),
        rows=alone[1 - column_side],
        columns=alone[column_side],
        terms=numbers([not s for s in spatial]),
        units=tuple(n for n, extent in enumerate(extents) if extent == 1),
        together=_columns_together(schedule, reductions[0]),
        itemsize=4 if str(block.body.value.ty.dtype) == "float32" else 2,
    )


def _is_reduction(schedule: Schedule, rv: SBlockRV) -> bool:
    return schedule.get(rv).init is not None


def _columns_together(schedule: Schedule, rv: SBlockRV) -> int:
    """Return how many places of the output's last dimension what follows the block reads for one element."""
    output = schedule.get(rv).body.buffer
    reads = [region for consumer in schedule.get_consumers(rv) for region in schedule.get(consumer).reads]
    extents = [region.region[-1].extent for region in reads if region.source.same_as(output)]
    return max((int(extent) for extent in extents if isinstance(extent, tirx.IntImm)), default=1)


def _product(block: Any) -> tuple[Any, Any] | None:
    """Return the two loads of ``c = c + a * b``."""
    body = block.body
    if not isinstance(body, tirx.BufferStore) or type(body.value).__name__ != "Add":
        return None
    own, product = body.value.a, body.value.b
    if type(own).__name__ != "TensorLoad" or not own.source.same_as(body.buffer) or type(product).__name__ != "Mul":
        return None
    loads = [_load(product.a), _load(product.b)]
    return (loads[0], loads[1]) if all(load is not None for load in loads) else None


def _load(value: Any) -> Any:
    while type(value).__name__ == "Cast":
        value = value.value
    return value if type(value).__name__ == "TensorLoad" else None


def _uses(value: Any, axis: Any) -> bool:
    if is_axis(value, axis):
        return True
    return any(_uses(child, axis) for name in ("a", "b") if (child := getattr(value, name, None)) is not None)


def is_axis(index: Any, axis: Any) -> bool:
    """Return whether an index is exactly the variable ``axis``."""
    return isinstance(index, tirx.Var) and bool(index.same_as(axis))
