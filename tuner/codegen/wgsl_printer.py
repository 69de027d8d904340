"""Lowered device functions of TVM as WGSL, written as one would by hand.

TVM's own generator writes scalar accesses of unsized arrays, the whole address at each of them, and every choice as a
branch. Here buffers are arrays of vectors where the accesses allow it (`wgsl_layout`), what does not change in a loop
is computed before it, and what a straight line of statements loads twice is loaded once. Arrays have their size, so
that a browser's clamps compare with a constant, or go where it can tell the bounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tvm import tirx

from .lowered_kernel import LoweredKernel, dtype_of, joined_branches, places, span, terms
from .straight_line import StraightLine
from .wgsl_expressions import Expressions, Text
from .wgsl_layout import EmitError, Layout, Space, aligned, array_type, binding_declaration, swizzle

_AXES = "xyz"
_TRIVIAL = re.compile(r"[\w.]+")
_INDENT = "  "


@dataclass(frozen=True)
class PrintedKernel:
    """The WGSL of one kernel; ``bindings`` lie in the order of the function's parameters."""

    source: str
    bindings: tuple[Layout, ...]
    workgroup_bytes: int
    features: frozenset[str]


@dataclass(frozen=True)
class Grid:
    """Workgroups along x and y of a launch.

    ``spread``: the x extent that is dispatched, where a long x is spread over z. ``bounded``: whether the shader limits
    the workgroup's place to the grid, which changes nothing but tells a browser's compiler (Tint): it derives bounds of
    indices through ``min``, ``%``, sums and products, and clamps each index of which it knows none.
    """

    x: int
    y: int
    spread: int | None = None
    bounded: bool = False


def print_kernel(func: tirx.PrimFunc, entry: str, workgroup: tuple[int, int, int], grid: Grid) -> PrintedKernel:
    """Return the WGSL of a device function as TVM's pipeline leaves it, before its intrinsics are lowered.

    Raises:
        EmitError: the function does something for which WGSL has no words.
    """
    return _Printer(func, workgroup, grid).print(entry)


@dataclass
class _Scope:
    """The lines of a block, and the names of what was computed there for the blocks inside it."""

    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


class _Printer:
    def __init__(self, func: tirx.PrimFunc, workgroup: tuple[int, int, int], grid: Grid) -> None:
        self._kernel = LoweredKernel(func)
        self._analyzer = self._kernel.analyzer
        self._workgroup = workgroup
        self._grid = grid
        self._taken: set[str] = {"thread", "group"}
        self._scopes = [_Scope()]
        self._region = StraightLine()
        self._text = Expressions(
            self._analyzer,
            self._kernel.integer,
            self._kernel.half,
            self._load,
            self._bound,
            self._outside,
            self._shared,
        )
        self._text.masks = not grid.bounded
        for layout in self._kernel.layouts.values():
            layout.name = self._new_name(layout.name)

    def print(self, entry: str) -> PrintedKernel:
        bindings = self._kernel.bindings()
        for variable, axis in self._kernel.axes.items():
            self._text.variables[variable] = self._axis(axis)
        self._statement(self._kernel.body)
        self._flush()
        x, y, z = self._workgroup
        builtins = "@builtin(local_invocation_id) thread : vec3<u32>, @builtin(workgroup_id) group : vec3<u32>"
        shared = [layout for layout in self._kernel.layouts.values() if layout.space is Space.WORKGROUP]
        half = any(layout.scalar == "f16" and not layout.packed for layout in self._kernel.layouts.values())
        lines = [
            *(["enable f16;", ""] if half else []),
            *(binding_declaration(number, layout) for number, layout in enumerate(bindings)),
            *(f"var<workgroup> {layout.name} : {array_type(layout)};" for layout in shared),
            "",
            f"@compute @workgroup_size({x}, {y}, {z})",
            f"fn {entry}({builtins}) {{",
            *(_INDENT + line for line in [*self._guard(), *self._scopes[0].lines]),
            "}",
        ]
        # Each variable takes a multiple of 16 bytes (W3C WebGPU, "validating GPUProgrammableStage").
        workgroup_bytes = sum(-(-layout.element_bytes * layout.count // 16) * 16 for layout in shared)
        features = frozenset({"shader-f16"}) if half else frozenset()
        return PrintedKernel("\n".join(lines) + "\n", tuple(bindings), workgroup_bytes, features)

    def _axis(self, tag: str) -> Text:
        kind, letter = tag.split(".")
        if kind == "threadIdx":
            return Text(f"thread.{letter}" if self._text.integer == "u32" else f"i32(thread.{letter})", atom=True)
        text = f"group.{letter}"
        if letter == "x" and self._grid.spread is not None:
            text = f"(group.z * {self._grid.spread}u + group.x)"
        if self._grid.bounded:
            name, last = self._new_name(f"group_{letter}"), getattr(self._grid, letter) - 1
            self._lines.append(f"let {name} = min({text}, {last}u);")
            text = name
        return Text(text if self._text.integer == "u32" else f"i32({text})", atom=True)

    def _guard(self) -> list[str]:
        """Return the line that ends the workgroups beyond a spread grid."""
        spread = self._grid.spread
        if spread is None or self._grid.x % spread == 0:
            return []
        return [f"if (group.z * {spread}u + group.x >= {self._grid.x}u) {{ return; }}"]

    # Statements.

    def _statement(self, statement: Any) -> None:
        writer = getattr(self, f"_write_{type(statement).__name__.lower()}", None)
        if writer is None:
            raise EmitError(f"the kernel holds a {type(statement).__name__} statement, for which no WGSL is known")
        writer(statement)

    def _write_seqstmt(self, statement: Any) -> None:
        for child in joined_branches(statement.seq):
            self._statement(child)

    def _write_attrstmt(self, statement: Any) -> None:
        self._statement(statement.body)

    def _write_declbuffer(self, _: Any) -> None:
        """Storage buffers are declared before the function."""

    def _write_allocbuffer(self, statement: Any) -> None:
        layout = self._kernel.layouts[statement.buffer]
        if layout.space is not Space.FUNCTION:
            return
        self._flush()
        if layout.registers:
            places = {
                int(base.value) // layout.lanes + k
                for base, n, _ in layout.accesses
                for k in range(-(-n // layout.lanes))
            }
            self._lines.extend(f"var {layout.name}_{place} : {layout.element};" for place in sorted(places))
        else:
            self._lines.append(f"var {layout.name} : {array_type(layout)};")

    def _write_for(self, statement: Any) -> None:
        low, extent = statement.min, statement.extent
        if isinstance(extent, tirx.IntImm) and int(extent.value) == 1:
            self._text.variables[statement.loop_var] = self._text.write(low)
            self._statement(statement.body)
            return
        self._flush()
        name = self._new_name(str(statement.loop_var.name))
        self._text.variables[statement.loop_var] = Text(name, len(self._scopes), atom=True)
        first, end = self._text.write(low), self._text.write(self._analyzer.simplify(low + extent))
        one = self._text.constant(1)
        head = f"for (var {name} : {self._text.integer} = {first.text}; {name} < {end.text}; {name} += {one}) {{"
        self._block(head, statement.body)
        self._lines.append("}")

    def _write_while(self, statement: Any) -> None:
        raise EmitError("the kernel holds a loop without a known number of iterations")

    def _write_ifthenelse(self, statement: Any) -> None:
        test = self._settled(self._text.hoist(self._text.write(statement.condition)).text)
        self._block(f"if ({test}) {{", statement.then_case)
        if statement.else_case is not None:
            self._block("} else {", statement.else_case)
        self._lines.append("}")

    def _write_bind(self, statement: Any) -> None:
        value = self._text.write(statement.value)
        name = self._new_name(str(statement.var.name))
        self._region.statements.append(f"let {name} = {value.text};")
        self._text.variables[statement.var] = Text(name, len(self._scopes) - 1, atom=True)

    def _write_evaluate(self, statement: Any) -> None:
        value = statement.value
        if isinstance(value, tirx.IntImm):
            return
        if getattr(value.op, "name", "") != "tirx.tvm_storage_sync":
            raise EmitError(f"the kernel evaluates {value.op}, for which no WGSL is known")
        self._flush()
        self._lines.append("workgroupBarrier();")

    def _write_bufferstore(self, statement: Any) -> None:
        layout = self._kernel.layout(statement.buffer)
        index, value = statement.indices[0], statement.value
        found = span(statement.buffer, index)
        base, lanes, stride = found if found is not None else (index, dtype_of(index)[1], 0)
        if stride == 1 and (lanes == layout.lanes or (lanes < layout.lanes and layout.space is Space.FUNCTION)):
            written = [self._place(layout, base, lanes)]
            values = [self._stored(statement, layout, lanes)]
        else:
            whole = self._text.write(value)
            name = self._new_name("value") if lanes > 1 else ""
            if name:
                self._region.statements.append(f"let {name} = {whole.text};")
            step = layout.lanes if stride == 1 else 1
            if found is None:
                firsts = [self._analyzer.simplify(place) for place in places(statement.buffer, index)]
            else:
                firsts = [base + k * stride for k in range(0, lanes, step)]
            written = [self._place(layout, first, step) for first in firsts]
            values = [f"{name}{swizzle(k, step)}" if name else whole.text for k in range(0, lanes, step)]
        self._region.statements.extend(f"{place} = {value};" for place, value in zip(written, values, strict=True))
        self._region.stored(layout.name, register=layout.registers)

    def _stored(self, statement: Any, layout: Layout, lanes: int) -> str:
        return self._text.write(statement.value).text

    # Blocks and straight lines.

    @property
    def _lines(self) -> list[str]:
        return self._scopes[-1].lines

    def _block(self, head: str, body: Any) -> None:
        """Write a block; what it computes from outer variables alone comes before ``head``."""
        self._flush()
        self._scopes.append(_Scope())
        self._statement(body)
        self._flush()
        inner = self._scopes.pop()
        self._lines.extend([head, *(_INDENT + line for line in inner.lines)])

    def _flush(self) -> None:
        """End the current straight line."""
        self._lines.extend(self._region.lines(lambda: self._new_name("t")))
        self._region = StraightLine()

    def _settled(self, text: str) -> str:
        """Return an expression of the current straight line with its loads in place, after ending that line."""
        self._region.statements.append(text)
        *before, last = self._region.lines(lambda: self._new_name("t"))
        self._lines.extend(before)
        self._region = StraightLine()
        return last

    def _new_name(self, wanted: str) -> str:
        wanted = re.sub(r"\W", "_", wanted).strip("_") or "v"
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    # Accesses.

    def _load(self, value: Any) -> Text:
        layout = self._kernel.layout(value.source)
        found = span(value.source, value.indices[0])
        if found is None:
            return self._gathered(layout, places(value.source, value.indices[0]))
        base, lanes, stride = found
        if lanes <= layout.lanes and (lanes == 1 or (stride == 1 and aligned(base, lanes, self._analyzer))):
            return self._lanes(layout, base, lanes)
        return self._gathered(layout, [base + k * stride for k in range(lanes)])

    def _lanes(self, layout: Layout, base: Any, lanes: int) -> Text:
        """Return neighbouring scalars of one element."""
        text, depth = self._element(layout, base)
        if layout.packed:
            return Text(self._unpacked(layout, text, base, lanes), depth, atom=True, loads=True)
        if lanes < layout.lanes:
            text += self._component(layout, base, lanes)
        return Text(text, depth, atom=True, loads=True)

    def _unpacked(self, layout: Layout, element: str, base: Any, lanes: int) -> str:
        """Return half floats of an element of words as single floats."""
        words = [element] if layout.lanes == 2 else [f"{element}.{letter}" for letter in "xy"]
        if lanes == 4:
            pairs = ", ".join(self._region.expression(f"unpack2x16float({word})") for word in words)
            return f"vec4<f32>({pairs})"
        place = self._analyzer.simplify(tirx.floormod(base, layout.lanes))
        if isinstance(place, tirx.IntImm):
            word, half = divmod(int(place.value), 2)
            pair = self._region.expression(f"unpack2x16float({words[word]})")
            return pair if lanes == 2 else f"{pair}.{'xy'[half]}"
        if layout.lanes == 4 or lanes == 2:
            raise EmitError(f"the kernel reads part of an element of {layout.name} at a place that is not known")
        shift = self._text.write(place * 16)
        amount = shift.operand if self._text.integer == "u32" else f"u32({shift.text})"
        return f"unpack2x16float({element} >> {amount}).x"

    def _gathered(self, layout: Layout, indices: list[Any]) -> Text:
        """Return the vector of elements at several places."""
        parts = [self._lanes(layout, self._analyzer.simplify(index), 1) for index in indices]
        texts = [part.text for part in parts]
        inner = texts[0] if len(set(texts)) == 1 else ", ".join(texts)
        depth = max(part.depth for part in parts)
        scalar = "f32" if layout.packed else layout.scalar
        return Text(f"vec{len(parts)}<{scalar}>({inner})", depth, atom=True, loads=True)

    def _place(self, layout: Layout, base: Any, lanes: int) -> str:
        """Return the element, or the components of one, that a store assigns."""
        text = self._address(layout, base)[0]
        return text if lanes == layout.lanes else text + self._component(layout, base, lanes)

    def _element(self, layout: Layout, index: Any) -> tuple[str, int]:
        """Return the element that holds ``index``, as a load that a straight line makes once."""
        text, depth = self._address(layout, index)
        if layout.registers:
            return text, depth
        return self._region.load(layout.name, text), depth

    def _address(self, layout: Layout, index: Any) -> tuple[str, int]:
        here = len(self._scopes) - 1
        if layout.registers:
            return f"{layout.name}_{int(index.value) // layout.lanes}", here
        if layout.lanes > 1:
            index = tirx.floordiv(index, layout.lanes)
        return f"{layout.name}[{self._index(self._analyzer.simplify(index))}]", here

    def _component(self, layout: Layout, index: Any, lanes: int) -> str:
        if layout.lanes == 1:
            return ""
        place = self._analyzer.simplify(tirx.floormod(index, layout.lanes))
        if isinstance(place, tirx.IntImm):
            return swizzle(int(place.value), lanes)
        if lanes > 1:
            raise EmitError(f"the kernel reads part of a vector of {layout.name} at a place that is not known")
        return f"[{self._text.write(place).text}]"

    def _index(self, index: Any) -> str:
        """Return an index; sums of outer variables are computed in their own scope."""
        constant = 0
        parts: list[Text] = []
        for term in terms(index):
            if isinstance(term, tirx.IntImm):
                constant += int(term.value)
            else:
                parts.append(self._text.write(term))
        if any(part.loads for part in parts):
            total = " + ".join(part.operand for part in parts)
            return f"{total}{self._offset(constant)}"
        here = len(self._scopes) - 1
        outer = ""
        for depth in sorted({part.depth for part in parts}):
            added = [part.operand for part in parts if part.depth == depth]
            outer = " + ".join(([outer] if outer else []) + added)
            if depth < here:
                outer = self._hoisted(outer, depth)
        return f"{outer}{self._offset(constant)}" if outer else self._text.constant(constant)

    def _offset(self, constant: int) -> str:
        if constant == 0:
            return ""
        return f" {'+' if constant > 0 else '-'} {self._text.constant(abs(constant))}"

    def _shared(self, value: Text) -> Text:
        """Return a mark for a value of the current straight line."""
        return Text(self._region.expression(value.text), value.depth, value.atom, loads=True)

    def _bound(self, value: Text) -> Text:
        """Return a name for the value of an expression, before the statement that is being written."""
        name = self._new_name("x")
        self._region.statements.append(f"let {name} = {value.text};")
        return Text(name, len(self._scopes) - 1, atom=True, loads=True)

    def _outside(self, value: Text) -> Text:
        """Return a name for a value that only depends on outer variables, else the value itself."""
        if value.loads or value.depth >= len(self._scopes) - 1:
            return value
        return Text(self._hoisted(value.text, value.depth), value.depth, atom=True)

    def _hoisted(self, text: str, depth: int) -> str:
        """Return a name for ``text``, computed at the end of scope ``depth`` as it is now."""
        if _TRIVIAL.fullmatch(text):
            return text
        scope = self._scopes[depth]
        if text not in scope.names:
            scope.names[text] = self._new_name("i")
            scope.lines.append(f"let {scope.names[text]} = {text};")
        return scope.names[text]
