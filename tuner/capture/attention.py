"""Scaled dot-product attention: one kernel, or split into two contractions around a softmax.

Both read and write ``[batch, sequence, heads, channels]``: the projections before and after use this order too, so no
transpose is needed. Where the scores of split attention would exceed a bound, they are computed for one range of
queries at a time. The ranges are marked (`SLICE`, `CONCAT`) and become byte offsets in `lowering`, without copies.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch.fx.node import map_arg
from tvm import relax, te, topi

from ...support.enums import AttentionForm, ComputePrecision
from ..ir import CaptureOptions
from ..schedule_rules.attention.definition import Attention, attention_of
from .relax_values import UnsupportedOperator, argument, dtype_of, permuted
from .rewrites.graph import shape_of
from .rewrites.markers import ALIGNMENT, CONCAT, HALF, range_of


def _sequence_first(builder: relax.BlockBuilder, value: relax.Expr) -> relax.Expr:
    """Return [batch, heads, sequence, channels] as [batch, sequence, heads, channels]; rank 3 has one head."""
    if len(value.ty.shape) == 3:
        batch, length, channels = shape_of(value)
        return builder.emit(relax.op.reshape(value, (batch, length, 1, channels)))
    return permuted(builder, value, [0, 2, 1, 3])


def _scores(query: te.Tensor, key: te.Tensor) -> te.Tensor:
    batch, length, heads, channels = query.shape
    channel = te.reduce_axis((0, channels), "c")
    return te.compute(
        (batch, heads, length, key.shape[1]),
        lambda b, h, i, j: te.sum(query[b, i, h, channel] * key[b, j, h, channel], axis=channel),
        name="attention_scores",
    )


def _weighted_values(weights: te.Tensor, value: te.Tensor) -> te.Tensor:
    batch, heads, length, context = weights.shape
    position = te.reduce_axis((0, context), "t")
    return te.compute(
        (batch, length, heads, value.shape[3]),
        lambda b, i, h, c: te.sum(weights[b, h, i, position] * value[b, position, h, c], axis=position),
        name="attention_values",
    )


def _multiplied_softmax(scores: te.Tensor, factor: float) -> te.Tensor:
    return topi.multiply(topi.nn.softmax(scores, axis=-1), factor)


_WEIGHT_FACTOR = 1024.0
"""Factor of a softmax that is stored as half floats: 4096 equal weights are near the least that are normal, and a GPU
may take smaller ones for zero. The greatest weight is 1."""

MAX_SCORES = 128 << 20
"""Most bytes of scores that are kept at once; more would only take more memory."""


def attention(node: Any, importer: Any, options: CaptureOptions) -> relax.Expr:
    """Convert ``scaled_dot_product_attention``.

    Raises:
        UnsupportedOperator: it has dropout, grouped queries or an unusual rank.
    """
    builder = importer.block_builder
    inputs = [importer.env[given] for given in node.args[:3]]
    mask_node = argument(node, 3, "attn_mask", None)
    causal = bool(argument(node, 5, "is_causal", False))
    if argument(node, 4, "dropout_p", 0.0) or node.kwargs.get("enable_gqa"):
        raise UnsupportedOperator("scaled_dot_product_attention with dropout or grouped queries")
    if len(inputs[0].ty.shape) not in (3, 4):
        raise UnsupportedOperator(f"scaled_dot_product_attention of rank {len(inputs[0].ty.shape)}")

    query, key, value = (_sequence_first(builder, x) for x in inputs)
    scale = node.kwargs.get("scale") or 1.0 / math.sqrt(shape_of(query)[3])
    if mask_node is not None and shape_of(query)[1] == shape_of(key)[1] and _is_causal(mask_node):
        causal, mask_node = True, None
    mask = None if mask_node is None else _additive_mask(builder, importer.env[mask_node], dtype_of(query))
    if options.attention is AttentionForm.FUSED and shape_of(value)[3] == shape_of(query)[3]:
        result = _fused(builder, query, key, value, mask, scale, causal)
    else:
        factor = _WEIGHT_FACTOR if options.compute is ComputePrecision.F16 else 1.0
        most = min(options.max_binding, MAX_SCORES)
        result = _split(builder, query, key, value, mask, scale, causal, most, factor)
    if len(inputs[0].ty.shape) == 3:
        batch, length, _, channels = shape_of(result)
        return builder.emit(relax.op.reshape(result, (batch, length, channels)))
    return permuted(builder, result, [0, 2, 1, 3])


def _split(
    builder: relax.BlockBuilder,
    query: relax.Expr,
    key: relax.Expr,
    value: relax.Expr,
    mask: relax.Expr | None,
    scale: float,
    causal: bool,
    max_binding: int,
    factor: float,
) -> relax.Expr:
    """Return attention as scores, softmax and values, for ranges of queries where the scores exceed a binding.

    Weights are multiplied by ``factor`` between the last two.
    """
    batch, length, heads, channels = shape_of(query)
    context, dtype = shape_of(key)[1], dtype_of(query)
    if causal:
        mask = relax.const(np.triu(np.full((1, 1, length, context), _masked(dtype), dtype), 1))

    def attend(q: relax.Expr, k: relax.Expr, v: relax.Expr, m: relax.Expr | None) -> relax.Expr:
        scores = builder.emit_te(_scores, q, k, primfunc_name_hint="attention_scores")
        scores = builder.emit(relax.op.multiply(scores, relax.const(scale, dtype)))
        if m is not None:
            scores = builder.emit(relax.op.add(scores, m))
        if factor == 1.0:
            weights = builder.emit(relax.op.nn.softmax(scores, axis=-1))
            return builder.emit_te(_weighted_values, weights, v, primfunc_name_hint="attention_values")
        weights = builder.emit_te(_multiplied_softmax, scores, factor, primfunc_name_hint="softmax")
        summed = builder.emit_te(_weighted_values, weights, v, primfunc_name_hint="attention_values")
        return builder.emit(relax.op.multiply(summed, relax.const(1 / factor, dtype)))

    rows = _query_rows(batch, length, heads, channels, context, np.dtype(dtype).itemsize, max_binding)
    if rows is None:
        return attend(query, key, value, mask)
    parts = []
    for b in range(batch):
        k, v = (_part(builder, x, b, 0, context) for x in (key, value))
        for start in range(0, length, rows):
            count = min(rows, length - start)
            m = None if mask is None else _mask_part(builder, mask, b, start, count)
            parts.append(attend(_part(builder, query, b, start, count), k, v, m))
    whole = relax.TensorType((*shape_of(query)[:3], shape_of(value)[3]), dtype)
    return builder.emit(relax.op.call_dps_packed(CONCAT, relax.Tuple(parts), whole))


def _fused(
    builder: relax.BlockBuilder,
    query: relax.Expr,
    key: relax.Expr,
    value: relax.Expr,
    mask: relax.Expr | None,
    scale: float,
    causal: bool,
) -> relax.Expr:
    """Return attention as one kernel; its operands lie as [batch, sequence, heads, channels]."""
    batch, length, heads, channels = shape_of(query)
    shape = None if mask is None else shape_of(mask)
    like = Attention(batch, length, shape_of(key)[1], heads, channels, scale, causal, shape, dtype_of(query))
    masks = [] if mask is None else [mask]

    def attend(*tensors: te.Tensor) -> te.Tensor:
        return attention_of(*tensors, like=like)

    return builder.emit_te(attend, query, key, value, *masks, primfunc_name_hint="attention")


def _is_causal(mask: Any) -> bool:
    """Return whether a mask depends on no input, and each position of a sequence sees those before it and itself."""
    known = _known_tensor(mask, {})
    if known is None or known.dim() < 2 or known.numel() != known.shape[-1] * known.shape[-2]:
        return False
    known = known.reshape(known.shape[-2:])
    if str(known.dtype) != "torch.bool":
        if not bool(((known == 0) | (known <= _masked("float32"))).all()):
            return False
        known = known == 0
    return known.shape[0] == known.shape[1] and bool((known == known.new_ones(known.shape).tril()).all())


def _known_tensor(node: Any, known: dict[Any, Any]) -> Any:
    """Return the value of a node of an exported graph if it follows from constants alone, else None."""
    if node in known:
        return known[node]
    known[node] = None
    if node.op != "call_function" or any(_known_tensor(one, known) is None for one in node.all_input_nodes):
        return None

    def value(argument: Any) -> Any:
        return known[argument]

    arguments, named = map_arg((node.args, dict(node.kwargs)), value)
    if "device" in named:
        named = {**named, "device": "cpu"}
    known[node] = node.target(*arguments, **named)
    return known[node]


def _masked(dtype: str) -> float:
    """Return what is added to a masked score: far below any score, but finite, so that no row becomes NaN."""
    return -1e9 if dtype == "float32" else -6e4


def _additive_mask(builder: relax.BlockBuilder, mask: relax.Expr, dtype: str) -> relax.Expr:
    """Return ``mask`` as a rank 4 tensor to add to scores; a boolean mask is true where attention is allowed."""
    if dtype_of(mask) == "bool":
        mask = builder.emit(relax.op.where(mask, relax.const(0.0, dtype), relax.const(_masked(dtype), dtype)))
    shape = shape_of(mask)
    return mask if len(shape) == 4 else builder.emit(relax.op.reshape(mask, (1,) * (4 - len(shape)) + shape))


def _query_rows(
    batch: int, length: int, heads: int, channels: int, context: int, item: int, max_binding: int
) -> int | None:
    """Return the number of queries whose scores stay under ``max_binding`` bytes; None for all at once.

    They are counted as ``item`` bytes each, also where they are stored as half floats. A range starts at a multiple of
    `ALIGNMENT` bytes in its tensor, and ranges of one size share kernels. So the result is the largest aligned divisor
    of ``length``. Where rows cannot be aligned, attention is computed at once.
    """
    row_scores, row_bytes = heads * context * item, heads * channels * HALF
    if batch * length * row_scores <= max_binding:
        return None
    step = ALIGNMENT // math.gcd(ALIGNMENT, row_bytes)
    if length % step or (context * row_bytes) % ALIGNMENT:
        return None
    fitting = max(max_binding // row_scores, step)
    divisors = [rows for rows in range(step, length + 1, step) if length % rows == 0 and rows <= fitting]
    return divisors[-1]


def _part(builder: relax.BlockBuilder, value: relax.Expr, batch: int, start: int, count: int) -> relax.Expr:
    """Return ``count`` positions of one batch entry of [batch, sequence, heads, channels], without a copy."""
    _, length, heads, channels = shape_of(value)
    return range_of(builder, value, (batch * length + start) * heads * channels, (1, count, heads, channels))


def _mask_part(builder: relax.BlockBuilder, mask: relax.Expr, batch: int, start: int, count: int) -> relax.Expr:
    entries, _, rows, _ = shape_of(mask)
    axes, begin, end = [], [], []
    if entries > 1:
        axes, begin, end = [0], [batch], [batch + 1]
    if rows > 1:
        axes, begin, end = [*axes, 2], [*begin, start], [*end, start + count]
    return builder.emit(relax.op.strided_slice(mask, axes, begin, end)) if axes else mask
