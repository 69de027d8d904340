"""A gated linear unit's values and gates are combined by the kernel that computes both, so that they are never stored.

The units of transformer blocks (Shazeer, "GLU Variants Improve Transformer", 2020) take one product with twice as many
columns as results. Here its columns lie in pairs, each value beside its gate, so that one thread has both.
"""

from __future__ import annotations

import tvm
from tvm import relax, te, tirx

from .graph import Graph, shape_of


def fold_gates(module: tvm.IRModule) -> tvm.IRModule:
    """Return ``module`` with products that are split into values and gates (GELU) as one kernel with their results.

    Args:
        module: its function ``main`` takes the inputs (attribute ``num_input``), then the weights.
    """
    graph = Graph(module)
    for var in graph.order:
        call = graph.call(var, "relax.multiply")
        if call is not None:
            for value, activated in (call.args, reversed(call.args)):
                if _fold(graph, var, value, activated):
                    break
    return graph.module()


def _fold(graph: Graph, var: relax.Var, value: relax.Expr, activated: relax.Expr) -> bool:
    """Fold the unit ``var`` into its product where it is ``value`` times ``activated``; return whether it is."""
    activation = graph.call(activated, "relax.nn.gelu")
    if activation is None:
        return False
    gate = activation.args[0]
    halves = [graph.value(half) for half in (value, gate)]
    if any(graph.only_use(half) is None for half in (value, activated, gate) if isinstance(half, relax.Var)):
        return False
    if not all(isinstance(half, relax.TupleGetItem) for half in halves) or [half.index for half in halves] != [0, 1]:
        return False
    both = halves[0].tuple_value
    split = graph.call(both, "relax.split")
    if split is None or not both.same_as(halves[1].tuple_value) or len(graph.uses(both) or ()) != 2:
        return False
    rank = len(shape_of(var))
    result = split.args[0]
    if len(both.ty.fields) != 2 or int(split.attrs.axis) % rank != rank - 1 or graph.only_use(result) is None:
        return False
    product, bias = graph.unbiased(result)
    call = graph.call(product, "relax.matmul")
    if call is None or call.args[1] not in graph.weights or len(shape_of(call.args[1])) != 2:
        return False
    if shape_of(result)[-1] != 2 * shape_of(var)[-1]:
        return False
    operands = [call.args[0], *(_paired(graph, var, weight) for weight in (call.args[1], bias) if weight is not None)]
    graph.replace(var, graph.compute(_gated_product, *operands, name="matmul_add_gelu_multiply"))
    return True


def _paired(graph: Graph, at: relax.Var, weight: relax.Expr) -> relax.Var:
    """Return ``weight`` with the columns of its second half between those of its first, computed before ``at``."""
    *outer, columns = shape_of(weight)
    axes = list(range(len(outer)))
    halves = graph.before(at, relax.op.reshape(weight, (*outer, 2, columns // 2)))
    pairs = graph.before(at, relax.op.permute_dims(halves, [*axes, len(axes) + 1, len(axes)]))
    return graph.before(at, relax.op.reshape(pairs, (*outer, columns)))


def _gated_product(given: te.Tensor, weight: te.Tensor, *bias: te.Tensor) -> te.Tensor:
    """Values times GELU of gates, from ``given`` […, terms], ``weight`` [terms, pairs] and a bias [pairs], if any."""
    *outer, terms = given.shape
    term = te.reduce_axis((0, terms), "k")
    both = te.compute(
        (*outer, weight.shape[1]),
        lambda *i: te.sum(given(*i[:-1], term) * weight[term, i[-1]], axis=term),
        name="matmul",
    )
    half, root = (tirx.const(number, given.dtype) for number in (0.5, 0.5**0.5))

    def unit(*i: tirx.Var) -> tirx.PrimExpr:
        value, gate = (
            both(*i[:-1], column) + (bias[0][column] if bias else tirx.const(0, given.dtype))
            for column in (i[-1] * 2, i[-1] * 2 + 1)
        )
        return value * (gate * (half + te.erf(gate * root) * half))

    return te.compute((*outer, weight.shape[1] // 2), unit, name="gated")
