"""A device function as TVM's pipeline leaves it: its buffers, axes and bounds, and walks over its IR."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.ir import Range
from tvm.sym import Analyzer
from tvm_ffi import structural_equal, structural_walk

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


def unread_value(body: Any) -> str:
    """Return the name of a value that is computed and never read; empty where there is none."""
    bound: list[Any] = []
    occurrences: Counter[Any] = Counter()
    structural_walk(body, [(tirx.Bind, bound.append), (tirx.Var, lambda var: occurrences.update([var]))])
    return next((str(one.var.name) for one in bound if occurrences[one.var] == 1), "")


def joined_branches(statements: Any) -> Iterator[Any]:
    """Yield statements in order, adjacent ones on the same condition, such as turns of an unrolled loop, as one."""
    pending: list[Any] = []
    for statement in statements:
        if pending and not _same_branch(pending[-1], statement):
            yield _joined(pending)
            pending = []
        pending.append(statement)
    if pending:
        yield _joined(pending)


def _same_branch(first: Any, second: Any) -> bool:
    if not isinstance(first, tirx.IfThenElse) or not isinstance(second, tirx.IfThenElse):
        return False
    plain = first.else_case is None and second.else_case is None
    return plain and structural_equal(first.condition, second.condition) and not _loads(first.condition)


def _loads(value: Any) -> bool:
    return type(value).__name__ == "TensorLoad" or any(_loads(child) for child in operands(value))


def _joined(branches: list[Any]) -> Any:
    if len(branches) == 1:
        return branches[0]
    return tirx.IfThenElse(branches[0].condition, tirx.SeqStmt([branch.then_case for branch in branches]), None)


def _computes_halves(body: Any) -> bool:
    """Whether a kernel does more with half floats than to read them from storage, copy them and convert them."""
    statements = list(walk_statements(body))
    own = [statement.buffer for statement in statements if type(statement).__name__ == "AllocBuffer"]
    for statement in statements:
        stores = type(statement).__name__ == "BufferStore" and dtype_of(statement.buffer)[0] == "float16"
        if stores and not any(statement.buffer.same_as(buffer) for buffer in own):
            return True
        if any(_is_half_computed(expression) for expression in operands(statement)):
            return True
    return False


def _is_half_computed(value: Any) -> bool:
    half = str(getattr(value.ty, "dtype", "")).startswith("float16")  # a text has none
    return (half and type(value).__name__ not in ("TensorLoad", "Broadcast")) or any(
        _is_half_computed(child) for child in operands(value)
    )


_OPERANDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max"), ("a", "b")),
    **dict.fromkeys(("EQ", "NE", "LT", "LE", "GT", "GE", "And", "Or"), ("a", "b")),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "LShift", "RShift"), ("a", "b")),
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


def span(buffer: Any, index: Any) -> tuple[Any, int, int] | None:
    """Return the first scalar that an access takes, the number of them, and the distance between them.

    None where the distances are not all the same known one: `places` has them then.
    """
    _, width = dtype_of(buffer)
    if dtype_of(index)[1] == 1:
        return index * width if width > 1 else index, width, 1
    if type(index).__name__ != "Ramp":
        return None
    stride = index.stride
    if not isinstance(stride, tirx.IntImm) or (width > 1 and int(stride.value) != 1):
        return None
    return index.base * width if width > 1 else index.base, int(index.lanes) * width, int(stride.value)


def places(buffer: Any, index: Any) -> list[Any]:
    """Return the scalars that an access with an index vector takes.

    Raises:
        EmitError: the buffer holds vectors, or the vector is computed by something else than arithmetic.
    """
    if dtype_of(buffer)[1] > 1:
        raise EmitError(f"the kernel accesses elements of {buffer.name} at distances that are not known")
    return [_lane(index, lane) for lane in range(dtype_of(index)[1])]


def _lane(value: Any, lane: int) -> Any:
    kind = type(value).__name__
    if kind == "Ramp":
        return value.base + value.stride * lane
    if kind == "Broadcast":
        return value.value
    if kind == "Cast":
        return tirx.Cast(dtype_of(value)[0], _lane(value.value, lane))
    if kind in ("Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max"):
        return getattr(tirx, kind)(_lane(value.a, lane), _lane(value.b, lane))
    raise EmitError(f"the kernel takes elements at indices that a {kind} expression computes")


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
    ``half`` is WGSL's type of half floats: ``f32`` where they are only read, from packed words.
    """

    def __init__(self, func: tirx.PrimFunc) -> None:
        self._func = func
        self.body = func.body
        self.analyzer = Analyzer()
        self.layouts: dict[Any, Layout] = {}
        self.axes: dict[Any, str] = {}
        self._signed = False
        self.half = "f16" if _computes_halves(self.body) else "f32"
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
            questions += [*self._integers(value.a), *self._integers(value.b)]
        elif kind == "Cast":
            questions += self._integers(value.value)
        for child in operands(value):
            self._read_expression(child, questions)

    def _integers(self, value: Any) -> list[Any]:
        """Return the signed integers that a vector, or a scalar, is made of.

        Nothing is known of what is not arithmetic.
        """
        dtype, lanes = dtype_of(value)
        if dtype.startswith("uint"):
            return []
        if not is_integer(dtype) or lanes == 1:
            return [value] if is_integer(dtype) else []
        try:
            return [_lane(value, lane) for lane in range(lanes)]
        except EmitError:
            self._signed = True
            return []

    def _add_buffer(self, buffer: Any, space: Space) -> None:
        self.layouts[buffer] = make_layout(buffer, space, packs_halves=self.half == "f32")

    def _add_access(self, buffer: Any, indices: Any, *, store: bool) -> None:
        if len(indices) != 1:
            raise EmitError(f"buffer {buffer.name} was not made flat")
        found = span(buffer, indices[0])
        if found is None:
            single = [(self.analyzer.simplify(place), 1, store) for place in places(buffer, indices[0])]
        else:
            base, lanes, stride = found
            single = [(base, lanes, store)] if stride == 1 else [(base + k * stride, 1, store) for k in range(lanes)]
        self.layout(buffer).accesses += single

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
