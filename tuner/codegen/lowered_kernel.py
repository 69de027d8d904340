"""A device function as TVM's pipeline leaves it: its buffers, axes and bounds, and walks over its IR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.ir import Range
from tvm.sym import Analyzer

from .wgsl_layout import EmitError, Layout, Space, choose_lanes, make_layout


def dtype_of(value: Any) -> tuple[str, int]:
    """Return the scalar type and the lanes of an expression or a buffer."""
    base, _, lanes = str(value.ty.dtype).partition("x")
    return base, int(lanes or 1)


def is_integer(dtype: str) -> bool:
    """Return whether a scalar type of TVM is an integer."""
    return dtype.startswith(("int", "uint"))


def walk_statements(statement: Any) -> Iterator[Any]:
    """Yield ``statement`` and all statements inside it, in order."""
    yield statement
    for child in _inner_statements(statement):
        yield from walk_statements(child)


def _inner_statements(statement: Any) -> list[Any]:
    if isinstance(statement, tirx.SeqStmt):
        return list(statement.seq)
    found = [getattr(statement, name, None) for name in ("body", "then_case", "else_case")]
    return [child for child in found if child is not None]


_OPERANDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max"), ("a", "b")),
    **dict.fromkeys(("EQ", "NE", "LT", "LE", "GT", "GE", "And", "Or"), ("a", "b")),
    "Not": ("a",),
    "Select": ("condition", "true_value", "false_value"),
    "Cast": ("value",),
    "Broadcast": ("value",),
    "Ramp": ("base", "stride"),
    "TensorLoad": ("indices",),
    "Call": ("args",),
    "BufferStore": ("value", "indices"),
    "For": ("min", "extent"),
    "IfThenElse": ("condition",),
    "Bind": ("value",),
    "Evaluate": ("value",),
}


def operands(node: Any) -> Iterator[Any]:
    """Yield the expressions that an expression or a statement holds directly."""
    for name in _OPERANDS.get(type(node).__name__, ()):
        value = getattr(node, name)
        if name in ("indices", "args"):
            yield from value
        else:
            yield value


def span(buffer: Any, index: Any) -> tuple[Any, int, int]:
    """Return the first scalar that an access takes, the number of them, and the distance between them.

    Raises:
        EmitError: the distance is not known.
    """
    _, width = dtype_of(buffer)
    if type(index).__name__ != "Ramp":
        return index * width if width > 1 else index, width, 1
    stride = index.stride
    if not isinstance(stride, tirx.IntImm) or (width > 1 and int(stride.value) != 1):
        raise EmitError(f"the kernel accesses elements of {buffer.name} at distances that are not known")
    return index.base * width if width > 1 else index.base, int(index.lanes) * width, int(stride.value)


def terms(index: Any) -> Iterator[Any]:
    """Yield the terms of a sum."""
    kind = type(index).__name__
    if kind == "Add":
        yield from terms(index.a)
        yield from terms(index.b)
    elif kind == "Sub" and isinstance(index.b, tirx.IntImm):
        yield from terms(index.a)
        yield tirx.IntImm(str(index.b.ty.dtype), -int(index.b.value))
    else:
        yield index


def is_scalar_integer(value: Any) -> bool:
    """Return whether an expression is one integer."""
    dtype, lanes = dtype_of(value)
    return lanes == 1 and is_integer(dtype)


def space_of(buffer: Any) -> Space:
    """Return the address space of a buffer that a kernel allocates."""
    scope = str(buffer.scope())
    if scope.startswith("shared"):
        return Space.WORKGROUP
    if scope == "local":
        return Space.FUNCTION
    raise EmitError(f"buffer {buffer.name} lies in {scope} memory, which WGSL does not have")


class LoweredKernel:
    """What a device function holds.

    ``layouts`` are its buffers in WGSL, ``axes`` the launch axis of each thread variable (``blockIdx.x``), ``integer``
    WGSL's type of its integers: ``u32`` where none can be negative. ``analyzer`` knows the bounds of all variables.
    """

    def __init__(self, func: tirx.PrimFunc) -> None:
        self._func = func
        self.body = func.body
        self.analyzer = Analyzer()
        self.layouts: dict[Any, Layout] = {}
        self.axes: dict[Any, str] = {}
        self._signed = False
        self._read()
        self.integer = "i32" if self._signed else "u32"

    def _read(self) -> None:
        """Collect buffers with their accesses, axes, the bounds of variables, and whether integers may be negative."""
        questions: list[Any] = []
        for statement in walk_statements(self._func.body):
            kind = type(statement).__name__
            if kind == "DeclBuffer" and statement.buffer not in self.layouts:
                self._add_buffer(statement.buffer, Space.STORAGE)
            elif kind == "AllocBuffer":
                self._add_buffer(statement.buffer, space_of(statement.buffer))
            elif kind == "For":
                self.analyzer.bind(statement.loop_var, Range.from_min_extent(statement.min, statement.extent))
            elif kind == "AttrStmt" and statement.attr_key == "thread_extent":
                axis = statement.node
                self.axes[axis.var] = str(axis.thread_tag)
                self.analyzer.bind(axis.var, Range(0, statement.value))
            for expression in operands(statement):
                self._read_expression(expression, questions)
            if kind == "BufferStore":
                self._add_access(statement.buffer, statement.indices, store=True)
        for layout in self.layouts.values():
            choose_lanes(layout, self.analyzer)
        self._signed = self._signed or any(int(self.analyzer.const_int_bound(q).min_value) < 0 for q in questions)

    def _read_expression(self, value: Any, questions: list[Any]) -> None:
        kind = type(value).__name__
        if kind == "TensorLoad":
            self._add_access(value.source, value.indices, store=False)
            self._signed = self._signed or str(value.ty.dtype).startswith("int")
        elif kind in ("FloorDiv", "FloorMod", "LT", "LE", "GT", "GE", "Min", "Max", "Div", "Mod"):
            questions += [side for side in (value.a, value.b) if is_scalar_integer(side)]
        elif kind == "Cast" and is_scalar_integer(value.value):
            questions.append(value.value)
        for child in operands(value):
            self._read_expression(child, questions)

    def _add_buffer(self, buffer: Any, space: Space) -> None:
        self.layouts[buffer] = make_layout(buffer, space)

    def _add_access(self, buffer: Any, indices: Any, *, store: bool) -> None:
        if len(indices) != 1:
            raise EmitError(f"buffer {buffer.name} was not made flat")
        base, lanes, stride = span(buffer, indices[0])
        single = [(base + k * stride, 1, store) for k in range(lanes)]
        self.layout(buffer).accesses += [(base, lanes, store)] if stride == 1 else single

    def layout(self, buffer: Any) -> Layout:
        """Return the layout of a buffer that the kernel declares."""
        try:
            return self.layouts[buffer]
        except KeyError:
            raise EmitError(f"the kernel uses buffer {buffer.name}, which it does not declare") from None

    def bindings(self) -> list[Layout]:
        """Return the storage buffers in the order of the parameters."""
        declared = {
            statement.data: statement.buffer
            for statement in walk_statements(self._func.body)
            if type(statement).__name__ == "DeclBuffer"
        }
        missing = [str(p.name) for p in self._func.params if p not in declared]
        if missing:
            raise EmitError(f"the kernel takes {', '.join(missing)} beside its buffers")
        return [self.layouts[declared[p]] for p in self._func.params]
