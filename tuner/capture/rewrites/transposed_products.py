"""Products between pictures and sequences read or write the other order themselves, so that no kernel transposes.

A transformer block takes a picture [batch, channels, height, width] as a sequence [batch, height × width, channels].
At its ends stand products over the channels: 1 × 1 convolutions of the picture, or linear layers of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax, te

from .graph import Graph, is_pointwise, shape_of

_TO_SEQUENCE = (0, 2, 3, 1)
_TO_PICTURE = (0, 3, 1, 2)


def fold_transposes(module: tvm.IRModule) -> tvm.IRModule:
    """Return ``module`` with the transposes between pictures and sequences as parts of the products beside them.

    Transposes that something else reads too, or that stand beside no product, are left alone.

    Args:
        module: its function ``main`` takes the inputs (attribute ``num_input``), then the weights.
    """
    graph = Graph(module)
    for var in graph.order:
        _fold_into_convolution(graph, var)
        _fold_into_linear(graph, var)
    return graph.module()


def _fold_into_convolution(graph: Graph, var: relax.Var) -> None:
    """Fold the transpose before or after ``var``, where that is a 1 × 1 convolution."""
    call = graph.call(var, "relax.nn.conv2d")
    if call is None or call.args[1] not in graph.weights or not is_pointwise(call):
        return
    picture, kernel = call.args
    result, bias = graph.biased(var, 1)
    after = graph.only_use(result)
    weight_shape = shape_of(kernel)[:2]
    sequence = _turned(graph, picture, _TO_PICTURE)
    if sequence is not None and graph.only_use(picture) is not None:
        _to_picture(graph, result, sequence, lambda at: _reshaped(graph, at, kernel, weight_shape), bias)
    elif after is not None and _turned(graph, after, _TO_SEQUENCE) is not None:
        _to_sequence(graph, after, picture, _reshaped(graph, after, kernel, weight_shape), bias)


def _fold_into_linear(graph: Graph, var: relax.Var) -> None:
    """Fold the transpose before or after ``var``, where that is the product of a linear layer."""
    call = graph.call(var, "relax.matmul")
    if call is None or call.args[1] not in graph.weights or len(shape_of(call.args[1])) != 2:
        return
    sequence, weight = call.args
    result, bias = graph.biased(var, -1)
    before, after = graph.call(sequence, "relax.reshape"), graph.only_use(result)
    transpose = graph.only_use(after) if after is not None and graph.name(after) == "relax.reshape" else None
    turned = None if before is None else before.args[0]
    picture = _turned(graph, turned, _TO_SEQUENCE)
    if (
        picture is not None
        and turned is not None
        and graph.only_use(sequence) is not None
        and graph.only_use(turned) is not None
        and len(shape_of(sequence)) == 3
    ):
        _to_sequence(graph, result, picture, graph.before(result, relax.op.permute_dims(weight)), bias)
    elif transpose is not None and _turned(graph, transpose, _TO_PICTURE) is not None:
        _to_picture(graph, transpose, sequence, lambda at: graph.before(at, relax.op.permute_dims(weight)), bias)


def _to_sequence(graph: Graph, var: relax.Var, picture: relax.Expr, weight: relax.Var, bias: relax.Var | None) -> None:
    """Bind ``var`` to the product of ``picture`` and ``weight`` [channels, terms], plus the bias, channels last."""
    batch, terms, height, width = shape_of(picture)
    channels, _ = shape_of(weight)
    pixels = _reshaped(graph, var, picture, (batch, terms, height * width))
    made = graph.before(var, graph.compute(_product_to_sequence, pixels, weight, name="matmul"))
    if bias is not None:
        made = graph.before(var, relax.op.add(made, _reshaped(graph, var, bias, (channels,))))
    graph.replace(var, relax.op.reshape(made, shape_of(var)))


def _to_picture(
    graph: Graph,
    var: relax.Var,
    sequence: relax.Expr,
    weight_at: Callable[[relax.Var], relax.Var],
    bias: relax.Var | None,
) -> None:
    """Bind the picture ``var`` to the product of ``sequence`` and a weight [channels, terms], plus the bias.

    A picture that is added to it is added in the same kernel.
    """
    batch, channels, height, width = shape_of(var)
    addition = graph.only_use(var)
    addends = graph.call(addition, "relax.add")
    other = None
    if addition is not None and addends is not None:
        other = addends.args[1] if addends.args[0].same_as(var) else addends.args[0]
        other = other if shape_of(other) == shape_of(var) else None
    at = var if addition is None or other is None else addition
    pixels = (batch, channels, height * width)
    weight = weight_at(at)
    rows = _reshaped(graph, at, sequence, (batch, height * width, shape_of(weight)[1]))
    made = graph.before(at, graph.compute(_product_to_picture, rows, weight, name="matmul"))
    if bias is not None:
        made = graph.before(at, relax.op.add(made, _reshaped(graph, at, bias, (channels, 1))))
    if other is not None:
        made = graph.before(at, relax.op.add(made, _reshaped(graph, at, other, pixels)))
    graph.replace(at, relax.op.reshape(made, shape_of(at)))


def _reshaped(graph: Graph, at: relax.Var, value: relax.Expr, shape: tuple[int, ...]) -> relax.Var:
    return graph.before(at, relax.op.reshape(value, shape))


# Pixels are one axis here: tiles of them need not end where lines do.


def _product_to_sequence(picture: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """[batch, terms, pixels] and [channels, terms] → [batch, pixels, channels]."""
    batch, terms, pixels = picture.shape
    term = te.reduce_axis((0, terms), "k")
    return te.compute(
        (batch, pixels, weight.shape[0]),
        lambda b, i, c: te.sum(picture[b, term, i] * weight[c, term], axis=term),
        name="product",
    )


def _product_to_picture(sequence: te.Tensor, weight: te.Tensor) -> te.Tensor:
    """[batch, pixels, terms] and [channels, terms] → [batch, channels, pixels]."""
    batch, pixels, terms = sequence.shape
    term = te.reduce_axis((0, terms), "k")
    return te.compute(
        (batch, weight.shape[0], pixels),
        lambda b, c, i: te.sum(weight[c, term] * sequence[b, i, term], axis=term),
        name="product",
    )


def _turned(graph: Graph, var: relax.Expr | None, axes: tuple[int, ...]) -> relax.Expr | None:
    """Return what ``var`` has with its axes in the order ``axes``; None where it is no such transpose."""
    call = graph.call(var, "relax.permute_dims")
    if call is None or call.attrs.axes is None or tuple(int(axis) for axis in call.attrs.axes) != axes:
        return None
    return call.args[0]
