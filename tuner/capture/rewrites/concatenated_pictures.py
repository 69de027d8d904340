"""Norms and 1 × 1 convolutions of pictures whose channels are joined read the parts, so that the whole is never stored.

The blocks of a UNet's second half join what they get with what a block of its first half kept.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tvm
from tvm import relax, te, topi

from .graph import Graph, is_pointwise, shape_of

_CHANNELS = 1


def fold_concatenations(module: tvm.IRModule) -> tvm.IRModule:
    """Return ``module`` with joined channels as a part of the group norms and 1 × 1 convolutions that alone read them.

    Args:
        module: its function ``main`` takes the inputs (attribute ``num_input``), then the weights.
    """
    graph = Graph(module)
    for var in graph.order:
        call = graph.call(var, "relax.concat")
        if call is None or not isinstance(call.args[0], relax.Tuple):
            continue
        if len(shape_of(var)) != 4 or int(call.attrs.axis) != _CHANNELS or len(call.args[0].fields) != 2:
            continue
        readers = graph.uses(var) or []
        if readers and all(_reads_parts(graph, reader, var) for reader in readers):
            for reader in readers:
                _fold(graph, reader, list(call.args[0].fields))
    return graph.module()


def _reads_parts(graph: Graph, reader: relax.Var, whole: relax.Var) -> bool:
    norm, convolution = graph.call(reader, "relax.nn.group_norm"), graph.call(reader, "relax.nn.conv2d")
    if norm is not None:
        return int(norm.attrs.channel_axis) == _CHANNELS and norm.args[0].same_as(whole)
    return convolution is not None and is_pointwise(convolution) and convolution.args[0].same_as(whole)


def _fold(graph: Graph, reader: relax.Var, parts: list[relax.Expr]) -> None:
    norm = graph.call(reader, "relax.nn.group_norm")
    call = graph.value(reader)
    describe, name = (_convolution, "conv2d") if norm is None else (partial(_norm, attrs=norm.attrs), "group_norm")
    graph.replace(reader, graph.compute(describe, *parts, *call.args[1:], name=f"concatenate_{name}"))


def _norm(first: te.Tensor, second: te.Tensor, scale: te.Tensor, shift: te.Tensor, *, attrs: Any) -> te.Tensor:
    joined = topi.concatenate([first, second], _CHANNELS)
    axes = [int(axis) for axis in attrs.axes]
    return topi.nn.group_norm(joined, scale, shift, int(attrs.num_groups), _CHANNELS, axes, float(attrs.epsilon))


def _convolution(first: te.Tensor, second: te.Tensor, weight: te.Tensor) -> te.Tensor:
    joined = topi.concatenate([first, second], _CHANNELS)
    return topi.nn.conv2d(joined, weight, [1, 1], [0, 0, 0, 0], [1, 1], "NCHW", "OIHW")
