"""Emits a stage with its large pictures in parts, each a range of channels of one entry of the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..rewrites.graph import operator_name, shape_of
from ..rewrites.markers import ALIGNMENT, CONCAT, HALF, range_of
from .readers import ELEMENTWISE, Readers, is_picture, is_tensor, nbytes_of

_WIDE = 64
"""Channels that a part of a convolution's result keeps when it is made smaller than a binding."""
_SUMMED = 32
"""Channels that a part of a convolution's input keeps."""


def split_channels(module: tvm.IRModule, max_binding: int) -> tvm.IRModule:
    """Return ``module`` with the pictures of ``main`` over ``max_binding`` bytes in parts; itself where none is."""
    main = module["main"]
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    if not any(is_picture(binding.var) and 2 * nbytes_of(binding.var) > max_binding for binding in bindings):
        return module
    splitter = _Splitter(module, max_binding, bindings)
    splitter.builder_.update_func(module.get_global_var("main"), splitter.visit_expr(main))
    return splitter.builder_.get()


@dataclass(frozen=True)
class _Range:
    """Channels ``start`` to ``stop`` of entry ``batch``."""

    batch: int
    start: int
    stop: int

    @property
    def channels(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class _Part:
    """``value`` [1, channels, …] holds ``range`` of a picture."""

    range: _Range
    value: relax.Expr


@mutator
class _Splitter(PyExprMutator):
    """Emits ``main`` anew; keeps the parts of each variable of the old function that is not emitted as one tensor."""

    def __init__(self, module: tvm.IRModule, limit: int, bindings: Sequence[relax.VarBinding]) -> None:
        super().__init__(module)
        self._limit = limit
        self._bindings = {binding.var: binding for binding in bindings}
        self._readers = Readers(bindings)
        self._emitted: set[relax.Var] = set()
        self._included: dict[relax.Var, relax.Var] = {}
        """Sums of a convolution with another picture, from which it began: the variable that has its value already."""
        self._parts: dict[relax.Var, list[_Part]] = {}
        self._slices: dict[tuple[relax.Expr, tuple[tuple[int, int, int], ...]], relax.Expr] = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Emit a binding in parts where it has to be and can be, else as it is."""
        if binding.var in self._emitted:
            return
        self._emitted.add(binding.var)
        value = binding.value
        parts = self._split(binding.var, value) if isinstance(value, relax.Call) else None
        if parts is None:
            for var in relax.analysis.free_vars(value):
                if var in self._parts:
                    self._join(var)
            super().visit_var_binding_(binding)
        elif len(parts) == 1 and shape_of(parts[0].value) == shape_of(binding.var):
            self.set_var_remap(binding.var, parts[0].value)
        else:
            self._parts[binding.var] = parts

    def _split(self, var: relax.Var, call: relax.Call) -> list[_Part] | None:
        """Return the parts of a result; None where it is computed as one tensor."""
        if var in self._included:
            same = self._included[var]
            return self._parts.get(same) or [_Part(_Range(0, 0, shape_of(var)[1]), self.visit_expr(same))]
        # A result of the function is one tensor.
        if not is_picture(var) or not isinstance(var, relax.DataflowVar):
            return None
        name = operator_name(call)
        whole = not any(argument in self._parts for argument in _variables(call))
        if whole and nbytes_of(var) <= self._limit and not (name == "relax.nn.group_norm" and self._is_summed(var)):
            return None
        if name == "relax.nn.conv2d":
            return self._convolution(var, call)
        if name == "relax.nn.group_norm":
            return self._group_norm(var, call)
        if name == "relax.image.resize2d":
            batch, channels = shape_of(var)[:2]
            entries = [_Range(b, 0, channels) for b in range(batch)]
            ranges = entries if whole and self._readers.folds_upsampling(var, call) else self._ranges(var)
            return self._each(ranges, [call.args[0]], lambda x: self._again(call, [x, call.args[1]]))
        if name in ELEMENTWISE:
            return self._elementwise(var, call)
        return None

    def _again(self, call: relax.Call, arguments: list[relax.Expr]) -> relax.Expr:
        return self.builder_.emit(relax.Call(call.op, arguments, call.attrs))

    def _is_summed(self, norm: relax.Var) -> bool:
        """Whether the result of a norm is large, and only read by convolutions whose results are one tensor each."""
        # Pictures of a batch would become parts, and so would all that is computed from them.
        nbytes, batch = nbytes_of(norm), shape_of(norm)[0]
        if 2 * nbytes <= self._limit or (nbytes <= self._limit and batch > 1):
            return False
        convolutions = self._readers.only_convolutions(norm)
        return convolutions is not None and all(nbytes_of(one) <= self._limit for one in convolutions)

    def _ranges(self, picture: relax.Expr) -> list[_Range] | None:
        """Return the ranges in which a picture is computed, of equal size; None where a row is too large."""
        batch, channels = shape_of(picture)[:2]
        whole = _Range(0, 0, channels)
        found = self._divided(picture, whole, self._limit)
        if found is not None and len(found) > 1 and self._readers.has_shortcut(picture):
            smaller = self._divided(picture, whole, self._limit // 2)
            found = smaller if smaller is not None and smaller[0].channels >= _WIDE else found
        return found and [_Range(b, r.start, r.stop) for b in range(batch) for r in found]

    def _divided(self, picture: relax.Expr, range_: _Range, most: int) -> list[_Range] | None:
        """Return a range of a picture as the fewest equal ones of at most so many bytes; None where there are none."""
        one = nbytes_of(picture) // math.prod(shape_of(picture)[:2])
        # Halves of halves keep groups of channels whole.
        counts = sorted(
            (n for n in range(1, range_.channels + 1) if range_.channels % n == 0), key=lambda n: (n & (n - 1) != 0, n)
        )
        size = next((range_.channels // n for n in counts if range_.channels // n * one <= most), None)
        if size is None:
            return None
        return [_Range(range_.batch, start, start + size) for start in range(range_.start, range_.stop, size)]

    def _each(self, ranges: list[_Range] | None, pictures: list[relax.Expr], compute: Any) -> list[_Part] | None:
        """Return what ``compute`` makes of the same ranges of ``pictures``."""
        if ranges is None or not all(self._can_take(picture, range_) for picture in pictures for range_ in ranges):
            return None
        return [_Part(r, compute(*(self._take(picture, r) for picture in pictures))) for r in ranges]

    def _elementwise(self, var: relax.Var, call: relax.Call) -> list[_Part] | None:
        shape = shape_of(var)
        split = next((self._parts[a] for a in _variables(call) if a in self._parts), None)
        ranges = [part.range for part in split] if split else self._ranges(var)
        if ranges is None:
            return None
        for argument in call.args:
            if is_tensor(argument) and shape_of(argument) == shape:
                if not all(self._can_take(argument, r) for r in ranges):
                    return None
            elif argument in self._parts:
                return None

        def argument_of(argument: relax.Expr, wanted: _Range) -> relax.Expr:
            if not is_tensor(argument):
                return argument
            if shape_of(argument) == shape:
                return self._take(argument, wanted)
            return self._broadcast(argument, shape, wanted)

        return [_Part(r, self._again(call, [argument_of(a, r) for a in call.args])) for r in ranges]

    def _broadcast(self, value: relax.Expr, shape: tuple[int, ...], wanted: _Range) -> relax.Expr:
        """Return what of ``value`` is combined with a range of a picture of ``shape``."""
        own = shape_of(value)
        missing = len(shape) - len(own)
        axes, begin, end = [], [], []
        for axis, (first, last) in enumerate([(wanted.batch, wanted.batch + 1), (wanted.start, wanted.stop)]):
            if axis >= missing and own[axis - missing] > 1:
                axes.append(axis - missing)
                begin.append(first)
                end.append(last)
        return self._sliced(self.visit_expr(value), axes, begin, end)

    def _group_norm(self, var: relax.Var, call: relax.Call) -> list[_Part] | None:
        data, gamma, beta = call.args
        attrs = call.attrs
        size = shape_of(data)[1] // int(attrs.num_groups)
        split = self._parts.get(data)
        ranges = [part.range for part in split] if split else self._ranges(var)
        if ranges is not None and self._is_summed(var):
            ranges = [smaller for range_ in ranges for smaller in self._summands(data, range_, size)]
        if int(attrs.channel_axis) != 1 or ranges is None or any(r.start % size or r.stop % size for r in ranges):
            return None
        if not all(self._can_take(data, r) for r in ranges):
            return None

        def normalized(wanted: _Range) -> relax.Expr:
            scale, shift = (
                self._sliced(self.visit_expr(value), [0], [wanted.start], [wanted.stop]) for value in (gamma, beta)
            )
            return self.builder_.emit(
                relax.op.nn.group_norm(
                    self._take(data, wanted),
                    scale,
                    shift,
                    num_groups=wanted.channels // size,
                    channel_axis=1,
                    axes=[int(axis) for axis in attrs.axes],
                    epsilon=float(attrs.epsilon),
                    center=bool(attrs.center),
                    scale=bool(attrs.scale),
                )
            )

        return [_Part(r, normalized(r)) for r in ranges]

    def _summands(self, data: relax.Expr, range_: _Range, group: int) -> list[_Range]:
        """Return the ranges in which the norm of ``range_`` is computed for a convolution."""
        found = self._divided(data, range_, self._limit // 4)
        if not found or found[0].channels < _SUMMED or found[0].channels % group:
            return [range_]
        return found if all(self._can_take(data, one) for one in found) else [range_]

    def _convolution(self, var: relax.Var, call: relax.Call) -> list[_Part] | None:
        data, kernel = call.args
        attrs = call.attrs
        ranges = self._ranges(var)
        if ranges is None or int(attrs.groups) != 1 or attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW":
            return None
        batch, channels = shape_of(data)[:2]
        split = self._parts.get(data)
        inputs = [part.range for part in split] if split else [_Range(b, 0, channels) for b in range(batch)]
        if not all(self._can_take(data, r) for r in inputs):
            return None
        kernel = self.visit_expr(kernel)
        sums: dict[_Range, relax.Expr] = self._begun(var, ranges) if len(inputs) > batch else {}
        for given in inputs:
            picture = self._take(data, given)
            for wanted in ranges:
                if wanted.batch != given.batch:
                    continue
                weights = self._sliced(kernel, [0, 1], [wanted.start, given.start], [wanted.stop, given.stop])
                made = self._again(call, [picture, weights])
                before = sums.get(wanted)
                if before is not None:
                    # Read as a range, what was added before belongs to a kernel of its own: else the first convolution
                    # would add all the others.
                    earlier = range_of(self.builder_, before, 0, shape_of(before))
                    made = self.builder_.emit(relax.op.add(made, earlier))
                sums[wanted] = made
        return [_Part(r, sums[r]) for r in ranges]

    def _begun(self, convolution: relax.Var, ranges: list[_Range]) -> dict[_Range, relax.Expr]:
        """Return the parts of the picture that a convolution and its bias are added to, to begin its sums with them.

        Then one picture holds them all: what each summand is added to is not needed any more.
        """
        found = self._readers.residual(convolution)
        # One of both summands begins with the other one.
        if found is None or found.total in self._included:
            return {}
        self._included[found.total] = found.biased
        self._emit_early(found.other)
        if not all(self._can_take(found.other, wanted) for wanted in ranges):
            del self._included[found.total]
            return {}
        return {wanted: self._take(found.other, wanted) for wanted in ranges}

    def _emit_early(self, var: relax.Var) -> None:
        binding = self._bindings.get(var)
        if binding is None or var in self._emitted:
            return
        for needed in relax.analysis.free_vars(binding.value):
            self._emit_early(needed)
        self.visit_var_binding_(binding)

    def _can_take(self, picture: relax.Expr, wanted: _Range) -> bool:
        """Whether a range of a picture can be read without a copy."""
        return self._place(picture, wanted) is not None

    def _place(self, picture: relax.Expr, wanted: _Range) -> tuple[_Part | None, int] | None:
        """Return the part that holds a range (None: the picture is one tensor), and the element at which it begins."""
        channels, one = shape_of(picture)[1], math.prod(shape_of(picture)[2:])
        if picture in self._parts:
            part = next(
                (p for p in self._parts[picture] if p.range.batch == wanted.batch and _within(wanted, p.range)), None
            )
            if part is None:
                return None
            start = (wanted.start - part.range.start) * one
        else:
            part, start = None, (wanted.batch * channels + wanted.start) * one
        return (part, start) if start * HALF % ALIGNMENT == 0 else None

    def _take(self, picture: relax.Expr, wanted: _Range) -> relax.Expr:
        part, start = self._place(picture, wanted) or (None, 0)
        source = part.value if part is not None else self.visit_expr(picture)
        shape = (1, wanted.channels, *shape_of(picture)[2:])
        return source if shape_of(source) == shape else range_of(self.builder_, source, start, shape)

    def _sliced(self, value: relax.Expr, axes: list[int], begin: list[int], end: list[int]) -> relax.Expr:
        """Return a slice of a weight, emitted once: pictures of a batch share it."""
        shape = shape_of(value)
        wanted = [(a, b, e) for a, b, e in zip(axes, begin, end, strict=True) if (b, e) != (0, shape[a])]
        if not wanted:
            return value
        key = (value, tuple(wanted))
        if key not in self._slices:
            self._slices[key] = self.builder_.emit(relax.op.strided_slice(value, *map(list, zip(*wanted, strict=True))))
        return self._slices[key]

    def _join(self, var: relax.Var) -> None:
        """Emit the parts of ``var`` as one tensor, for an operator that needs it so."""
        parts = relax.Tuple([part.value for part in self._parts.pop(var)])
        self.set_var_remap(var, self.builder_.emit(relax.op.call_dps_packed(CONCAT, parts, var.ty)))


def _variables(call: relax.Call) -> Iterator[relax.Var]:
    return (argument for argument in call.args if isinstance(argument, relax.Var))


def _within(inner: _Range, outer: _Range) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop
