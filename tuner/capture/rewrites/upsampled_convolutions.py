"""Convolutions of a picture that is first made larger read the small one, so that the large one is never stored."""

from __future__ import annotations

from functools import partial
from typing import Any

import tvm
from tvm import relax, te, topi

from .graph import Graph, operator_name, shape_of
from .markers import upsample_nearest


def fold_upsampling(module: tvm.IRModule) -> tvm.IRModule:
    """Return ``module`` with what repeats pixels as a part of the convolutions that alone read the result.

    Args:
        module: its function ``main`` takes the inputs (attribute ``num_input``), then the weights.
    """
    graph = Graph(module)
    for var in graph.order:
        upsampling = graph.call(var, "relax.image.resize2d")
        if upsampling is None or not upsamples_nearest(upsampling):
            continue
        height, width = shape_of(var)[2:]
        readers = graph.uses(var) or []
        if readers and all(reads_picture(graph.value(reader), var) for reader in readers):
            for reader in readers:
                call = graph.value(reader)
                convolve = partial(_convolution, attrs=call.attrs, height=height, width=width)
                made = graph.compute(convolve, upsampling.args[0], call.args[1], name="upsample_conv2d")
                graph.replace(reader, made)
    return graph.module()


def upsamples_nearest(call: relax.Call) -> bool:
    """Whether a ``resize2d`` repeats pixels of a picture [batch, channels, height, width]."""
    return call.attrs.method == "nearest_neighbor" and call.attrs.layout == "NCHW"


def reads_picture(call: relax.Expr, picture: relax.Var) -> bool:
    """Whether ``call`` is a convolution of all channels of ``picture``."""
    return operator_name(call) == "relax.nn.conv2d" and call.args[0].same_as(picture) and int(call.attrs.groups) == 1


def _convolution(picture: te.Tensor, weight: te.Tensor, *, attrs: Any, height: int, width: int) -> te.Tensor:
    large = upsample_nearest(picture, height, width)
    return topi.nn.conv2d(
        large,
        weight,
        [int(stride) for stride in attrs.strides],
        [int(padding) for padding in attrs.padding],
        [int(step) for step in attrs.dilation],
        attrs.data_layout,
        attrs.kernel_layout,
    )
