"""What converters of PyTorch's operators share: arguments of calls, and views of Relax values."""

from __future__ import annotations

from typing import Any

from tvm import relax

from .rewrites.graph import operator_name


class UnsupportedOperator(Exception):
    """A PyTorch operator that cannot be converted; the argument names it."""


def argument(node: Any, position: int, name: str, default: Any) -> Any:
    """Return an argument of a call, given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def dtype_of(value: relax.Expr) -> str:
    """Return the type of a value's elements."""
    return str(value.ty.dtype)


def permuted(builder: relax.BlockBuilder, value: relax.Expr, axes: list[int]) -> relax.Expr:
    """Return ``value`` with permuted axes, combined with the permutation that made ``value``, if any."""
    binding = builder.lookup_binding(value) if isinstance(value, relax.Var) else None
    if binding is not None and operator_name(binding) == "relax.permute_dims":
        before = binding.attrs.axes
        inner = [int(axis) for axis in before] if before is not None else list(range(len(axes)))[::-1]
        value, axes = binding.args[0], [inner[axis] for axis in axes]
    if axes == list(range(len(axes))):
        return value
    return builder.emit(relax.op.permute_dims(value, axes))
