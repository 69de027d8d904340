"""What reads each variable of a stage's Relax graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tvm import relax

from ..rewrites.graph import operator_name, shape_of
from ..rewrites.upsampled_convolutions import reads_picture, upsamples_nearest

ELEMENTWISE = frozenset(
    {f"relax.{name}" for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "clip", "astype")}
    | {f"relax.{name}" for name in ("negative", "abs", "square", "sqrt", "exp", "tanh", "sigmoid")}
    | {f"relax.nn.{name}" for name in ("silu", "relu", "gelu", "gelu_tanh", "leakyrelu")}
)


class Residual(NamedTuple):
    """The sum ``total`` of a convolution's result with its bias, ``biased``, and a picture ``other`` of its shape."""

    total: relax.Var
    biased: relax.Var
    other: relax.Var


class Readers:
    """The readers of each variable, as pairs of their variable and value."""

    def __init__(self, bindings: Sequence[relax.VarBinding]) -> None:
        self._readers: dict[relax.Var, list[tuple[relax.Var, relax.Expr]]] = {}
        for binding in bindings:
            for var in relax.analysis.free_vars(binding.value):
                self._readers.setdefault(var, []).append((binding.var, binding.value))

    def residual(self, convolution: relax.Var) -> Residual | None:
        """Return the sum with another picture that alone reads a convolution, with its bias if it has one."""
        biased = self._biased(convolution)
        addition = self._only_sum(biased)
        if addition is None:
            return None
        other = _other(addition[1], biased)
        fits = isinstance(other, relax.Var) and not other.same_as(biased) and shape_of(other) == shape_of(biased)
        return Residual(addition[0], biased, other) if fits else None

    def has_shortcut(self, convolution: relax.Var) -> bool:
        """Whether a convolution to other channels reads a convolution's result, with its bias, as it is."""
        picture = self._biased(convolution)
        return any(
            reads_picture(call, picture) and shape_of(made)[1] != shape_of(picture)[1]
            for made, call in self._readers.get(picture, [])
        )

    def only_convolutions(self, picture: relax.Var) -> list[relax.Var] | None:
        """Return the convolutions that read ``picture``, behind element-wise operators; None where others do, too."""
        waiting, found = [picture], []
        while waiting:
            var = waiting.pop()
            for made, call in self._readers.get(var, []):
                if operator_name(call) in ELEMENTWISE and isinstance(made, relax.DataflowVar):
                    waiting.append(made)
                elif reads_picture(call, var):
                    found.append(made)
                else:
                    return None
        return found

    def folds_upsampling(self, var: relax.Var, call: relax.Call) -> bool:
        """Whether ``var``, the result of a ``resize2d``, is only a way to read the small picture."""
        readers = self._readers.get(var, [])
        return upsamples_nearest(call) and bool(readers) and all(reads_picture(one, var) for _, one in readers)

    def _biased(self, convolution: relax.Var) -> relax.Var:
        """Return the sum of a convolution and its bias; the convolution where it has none."""
        addition = self._only_sum(convolution)
        is_bias = addition is not None and shape_of(_other(addition[1], convolution)) != shape_of(convolution)
        return addition[0] if addition is not None and is_bias else convolution

    def _only_sum(self, var: relax.Var) -> tuple[relax.Var, relax.Call] | None:
        readers = self._readers.get(var, [])
        alone = len(readers) == 1 and operator_name(readers[0][1]) == "relax.add"
        return readers[0] if alone and isinstance(readers[0][0], relax.DataflowVar) else None


def _other(call: relax.Call, argument: relax.Expr) -> relax.Expr:
    """Return the other argument of a call with two."""
    return call.args[1] if call.args[0].same_as(argument) else call.args[0]


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a tensor, not a shape or a number."""
    return isinstance(getattr(value, "ty", None), relax.TensorType)


def is_picture(value: Any) -> bool:
    """Whether ``value`` is a tensor with four axes."""
    return is_tensor(value) and len(value.ty.shape) == 4


def nbytes_of(value: relax.Expr) -> int:
    """Return the bytes of a tensor."""
    return math.prod(shape_of(value)) * np.dtype(str(value.ty.dtype)).itemsize
