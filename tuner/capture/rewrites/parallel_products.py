"""Products of one input with several weights of one shape become one product with the stacked weights.

Self-attention's queries, keys and values are such products, and what the residual blocks take from the time embedding.
Each result is a range of the joint one, without a copy, so that what reads them stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, te

from .graph import Graph, shape_of
from .markers import ALIGNMENT, HALF, SLICE

_STACKED_BYTES = 64 << 20
"""Most bytes of stacked weights: what a bundle loads at a time."""

_VIEWS = frozenset({"relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.permute_dims"})

_READERS = frozenset(
    f"relax.{name}"
    for name in ("matmul", "nn.conv2d", "nn.softmax", "nn.layer_norm", "nn.group_norm", "call_tir", "call_dps_packed")
)
"""Operators whose kernels read a product's result from memory in any case."""


@dataclass(frozen=True)
class _Product:
    """``result = input @ weight + bias``; the bias may be missing."""

    input: relax.Var
    weight: relax.Var
    bias: relax.Var | None
    product: relax.Var
    result: relax.Var


def combine_products(module: tvm.IRModule, max_binding: int) -> tvm.IRModule:
    """Return ``module`` with products of one input as one product.

    Products are left alone where what follows could become part of their kernels, and where a range of the joint result
    would not be aligned.

    Args:
        module: its function ``main`` takes the inputs (attribute ``num_input``), then the weights.
        max_binding: most bytes of the stacked weights, and of the joint result.
    """
    graph = Graph(relax.transform.EliminateCommonSubexpr()(module))
    groups: dict[tuple[object, ...], list[_Product]] = {}
    for var in graph.order:
        product = _find(graph, var)
        if product is not None:
            key = (product.input, shape_of(product.weight), str(product.weight.ty.dtype), product.bias is None)
            groups.setdefault(key, []).append(product)
    for products in groups.values():
        first = products[0]
        item = np.dtype(str(first.weight.ty.dtype)).itemsize
        nbytes, weight = (math.prod(shape_of(value)) * item for value in (first.result, first.weight))
        most = min(max_binding // nbytes, min(max_binding, _STACKED_BYTES) // weight)
        # Results may be stored as half floats, and weights must not depend on it.
        if nbytes // item * HALF % ALIGNMENT or most < 2:
            continue
        count = -(-len(products) // -(-len(products) // most))
        for start in range(0, len(products), count):
            if len(products[start : start + count]) > 1:
                _combine(graph, products[start : start + count])
    return graph.module()


def _find(graph: Graph, var: relax.Var) -> _Product | None:
    call = graph.call(var, "relax.matmul")
    if call is None or var in graph.weights:
        return None
    given, weight = call.args
    if not isinstance(given, relax.Var) or weight not in graph.weights or len(shape_of(weight)) != 2:
        return None
    if len(shape_of(given)) < 2 or call.ty.dtype != weight.ty.dtype:
        return None
    result, bias = graph.biased(var, -1)
    if bias is not None and len(shape_of(bias)) != 1:
        return None
    if _is_continued(graph, result, math.prod(shape_of(result))):
        return None
    return _Product(given, weight, bias, var, result)


def _is_continued(graph: Graph, var: relax.Var, elements: int) -> bool:
    """Return whether what follows ``var`` could be computed by the same kernel, element by element."""
    uses = graph.uses(var)
    if uses is None:
        return False
    for use in uses:
        name = graph.name(use)
        if name in _VIEWS:
            if _is_continued(graph, use, elements):
                return True
        elif name not in _READERS and not isinstance(use.ty, tvm.ir.TupleType) and math.prod(shape_of(use)) == elements:
            return True
    return False


def _combine(graph: Graph, products: list[_Product]) -> None:
    """Replace ``products`` by ranges of one product, which is computed where the first of them was."""
    first = products[0]
    at = first.product

    def stacked(values: list[relax.Var], shape: tuple[int, ...]) -> relax.Var:
        parts = [graph.before(at, relax.op.reshape(value, shape)) for value in values]
        return graph.before(at, relax.op.concat(parts, axis=0))

    biases = [one.bias for one in products if one.bias is not None]
    operands = [first.input, stacked([one.weight for one in products], (1, *shape_of(first.weight)))]
    operands += [stacked(biases, shape_of(biases[0]))] if biases else []
    name = "matmul_add" if biases else "matmul"
    joint = graph.before(at, graph.compute(_stacked_product, *operands, name=name))
    elements = math.prod(shape_of(first.result))
    for number, one in enumerate(products):
        place = relax.Tuple([joint, relax.ShapeExpr([number * elements])])
        graph.replace(one.result, relax.op.call_dps_packed(SLICE, place, first.result.ty))


def _stacked_product(given: te.Tensor, weights: te.Tensor, *biases: te.Tensor) -> te.Tensor:
    """[…, terms] and [products, terms, columns] → [products, …, columns]; biases one after the other."""
    count, terms, columns = weights.shape
    term = te.reduce_axis((0, terms), "k")
    shape = (count, *given.shape[:-1], columns)
    product = te.compute(
        shape,
        lambda p, *i: te.sum(given(*i[:-1], term) * weights[p, term, i[-1]], axis=term),
        name="product",
    )
    if not biases:
        return product
    return te.compute(shape, lambda p, *i: product(p, *i) + biases[0][p * columns + i[-1]], name="biased")
