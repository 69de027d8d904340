"""How the buffers of a lowered kernel lie in WGSL: as scalars, as vectors, or as variables of their own.

TVM's lowered code accesses flat buffers of scalars, by single elements or by ramps of consecutive ones. A buffer
becomes an array of vectors where every write is a whole aligned vector: WGSL may write all of a vector where one
component is assigned (W3C WGSL, "Memory Locations"), so two threads must never write components of the same one.

Half floats that a kernel only reads are loaded as words of two, without WebGPU's feature ``shader-f16``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tvm import tirx
from tvm.sym import Analyzer

from ...support.errors import WgtuneError

SCALARS = {"float32": "f32", "float16": "f16", "int32": "i32", "uint32": "u32"}
"""WGSL's scalar types by TVM's; WGSL stores no values of one or eight bytes."""

SCALAR_BYTES = {"f32": 4, "f16": 2, "i32": 4, "u32": 4}


class EmitError(WgtuneError):
    """A schedule for which no WGSL within the tier's limits can be emitted."""


class Space(Enum):
    """Address spaces of WGSL, by the names of TVM's storage scopes."""

    STORAGE = "global"
    WORKGROUP = "shared"
    FUNCTION = "local"


@dataclass
class Layout:
    """A buffer in WGSL: ``count`` elements of ``lanes`` scalars each.

    ``registers``: only constant indices occur, so that each element is a variable of its own. Drivers keep a variable
    in a register; an array only if they take it apart first. ``packed``: elements are 32-bit words of two half floats,
    whose ``lanes`` are 2 or 4.
    """

    name: str
    space: Space
    scalar: str
    size: int
    lanes: int = 1
    registers: bool = False
    written: bool = False
    packed: bool = False
    accesses: list[tuple[Any, int, bool]] = field(default_factory=list, repr=False)
    """First index, number of consecutive elements, and whether it is a write, per access."""

    @property
    def count(self) -> int:
        """Elements, the last one filled up where ``lanes`` does not divide the size."""
        return -(-self.size // self.lanes)

    @property
    def element(self) -> str:
        """WGSL's type of an element."""
        if self.packed:
            return "u32" if self.lanes == 2 else f"vec{self.lanes // 2}<u32>"
        return self.scalar if self.lanes == 1 else f"vec{self.lanes}<{self.scalar}>"

    def places(self) -> list[int]:
        """Return the elements that are accessed, where all indices are constants."""
        found = {
            (int(base.value) + offset) // self.lanes
            for base, count, _ in self.accesses
            for offset in range(0, count, self.lanes)
        }
        return sorted(found)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, without what fills up the last element."""
        return SCALAR_BYTES[self.scalar] * self.size

    @property
    def element_bytes(self) -> int:
        """Bytes of an element."""
        return SCALAR_BYTES[self.scalar] * self.lanes


def buffer_size(buffer: Any) -> int:
    """Return the elements of a TensorIR buffer of static shape.

    Raises:
        EmitError: the shape is not static.
    """
    shape = list(buffer.ty.shape)
    if not all(isinstance(extent, int | tirx.IntImm) for extent in shape):
        raise EmitError(f"buffer {buffer.name} has a shape that is not known before the kernel runs")
    return math.prod(int(extent) for extent in shape)


def make_layout(buffer: Any, space: Space, *, packs_halves: bool = False) -> Layout:
    """Return a layout of scalars for ``buffer``; accesses are still to be added.

    Args:
        buffer: a flat buffer of TensorIR.
        space: where it lies.
        packs_halves: whether half floats are packed in storage, and single floats elsewhere.
    """
    dtype, _, lanes = str(buffer.ty.dtype).partition("x")  # TVM makes some buffers arrays of vectors itself
    if dtype == "bool" and space is not Space.STORAGE:
        scalar = "bool"
    elif dtype in SCALARS:
        scalar = SCALARS[dtype]
    else:
        raise EmitError(f"buffer {buffer.name} holds {dtype}, which a WebGPU buffer cannot")
    packed = scalar == "f16" and packs_halves
    if packed and space is not Space.STORAGE:
        scalar, packed = "f32", False
    size = buffer_size(buffer) * int(lanes or 1)
    return Layout(str(buffer.name), space, scalar, size, lanes=2 if packed else 1, packed=packed)


def choose_lanes(layout: Layout, analyzer: Analyzer) -> None:
    """Set ``lanes`` and ``registers`` of ``layout`` from its accesses."""
    layout.written = any(store for *_, store in layout.accesses)
    constant = all(isinstance(base, tirx.IntImm) for base, *_ in layout.accesses)
    layout.registers = layout.space is Space.FUNCTION and constant
    if layout.scalar == "bool":
        return
    for lanes in (4, 2):
        if _fits(layout, lanes, analyzer):
            layout.lanes = lanes
            return


def _fits(layout: Layout, lanes: int, analyzer: Analyzer) -> bool:
    if layout.size % lanes or not any(count >= lanes for _, count, _ in layout.accesses):
        return False
    for base, count, store in layout.accesses:
        if count % lanes == 0:
            if aligned(base, lanes, analyzer):
                continue
            return False
        if layout.space is Space.FUNCTION:
            continue
        # A single element may be read where its place in the vector is known.
        if store or count != 1 or not _component_known(base, lanes, analyzer):
            return False
    return True


def aligned(base: Any, lanes: int, analyzer: Analyzer) -> bool:
    """Return whether ``base`` is always a multiple of ``lanes``."""
    known = analyzer.modular_set(base)
    return int(known.coeff) % lanes == 0 and int(known.base) % lanes == 0


def _component_known(base: Any, lanes: int, analyzer: Analyzer) -> bool:
    return int(analyzer.modular_set(base).coeff) % lanes == 0


def array_type(layout: Layout) -> str:
    """Return WGSL's type of a buffer."""
    return f"array<{layout.element}, {layout.count}>"


def binding_declaration(number: int, layout: Layout) -> str:
    """Return the declaration of a storage buffer."""
    access = "read_write" if layout.written else "read"
    return f"@group(0) @binding({number}) var<storage, {access}> {layout.name} : {array_type(layout)};"


def swizzle(first: int, lanes: int) -> str:
    """Return the access to neighbouring components of a vector."""
    return "." + "xyzw"[first : first + lanes]
