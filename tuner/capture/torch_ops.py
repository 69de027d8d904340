"""Converters from PyTorch to Relax for operators that TVM's importer lacks, or for which it makes slow kernels.

Attention becomes two contractions around a softmax, which read and write ``[batch, sequence, heads, channels]``: the
projections before and after it use this order too, so no transpose is needed. Where its scores would exceed a bound,
they are computed for one range of queries at a time. The ranges are marked (`SLICE`, `CONCAT`) and become byte offsets
in `lowering`, without copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from ...support.enums import WeightPrecision
from ...support.errors import CaptureError

SLICE = "wgtune.slice"
"""Marker ``SLICE(x, (start,), …)``: the elements of ``x`` from ``start`` on, without a copy."""

CONCAT = "wgtune.concat"
"""Marker ``CONCAT(a, b, …)``: the operands in sequence. The kernels that compute them write into the result."""

ALIGNMENT = 256
"""Bytes of which offsets of storage bindings are multiples (W3C WebGPU, minStorageBufferOffsetAlignment, default)."""

Converter = Callable[[Any, Any], relax.Expr]


class UnsupportedOperator(Exception):
    """A PyTorch operator that cannot be converted; the argument names it."""


def make_converters(max_binding: int, weights: WeightPrecision) -> dict[str, Converter]:
    """Return converters by PyTorch operator name, for TVM's importer.

    Args:
        max_binding: most bytes of attention scores, and of the part of an embedding table in one binding.
        weights: how weights are stored; embedding tables are half floats unless that is f32.
    """

    def attention(node: Any, importer: Any) -> relax.Expr:
        return _attention(node, importer, max_binding)

    def embedding(node: Any, importer: Any) -> relax.Expr:
        return _embedding(node, importer, max_binding, 4 if weights is WeightPrecision.F32 else 2)

    return {
        "scaled_dot_product_attention.default": attention,
        "transpose.int": _transpose,
        "to.dtype": _to_dtype,
        "to.device": _same,
        "contiguous.default": _same,
        "where.ScalarOther": _where_scalar,
        "argmax.default": _argmax,
        "embedding.default": embedding,
        "view.default": _reshape,
        "reshape.default": _reshape,
        "select.int": _select,
        "index_select.default": _index_select,
        "upsample_nearest2d.vec": _upsample_nearest,
        "div.Tensor": _scaled,
        "mul.Tensor": _scaled,
    }


def _argument(node: Any, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _shape(value: relax.Expr) -> tuple[int, ...]:
    return tuple(int(extent) for extent in value.ty.shape)


def _dtype(value: relax.Expr) -> str:
    return str(value.ty.dtype)


def _same(node: Any, importer: Any) -> relax.Expr:
    return importer.env[node.args[0]]


def _to_dtype(node: Any, importer: Any) -> relax.Expr:
    value = importer.env[node.args[0]]
    dtype = importer._convert_data_type(node.args[1], importer.env)
    return value if _dtype(value) == str(dtype) else importer.block_builder.emit(relax.op.astype(value, dtype))


def _where_scalar(node: Any, importer: Any) -> relax.Expr:
    condition, value = importer.env[node.args[0]], importer.env[node.args[1]]
    return importer.block_builder.emit(relax.op.where(condition, value, relax.const(node.args[2], _dtype(value))))


def _argmax(node: Any, importer: Any) -> relax.Expr:
    # torch returns int64, which WGSL does not have.
    index = relax.op.argmax(
        importer.env[node.args[0]], _argument(node, 1, "dim", None), _argument(node, 2, "keepdim", False)
    )
    return importer.block_builder.emit(relax.op.astype(importer.block_builder.emit(index), "int32"))


def _embedding(node: Any, importer: Any, max_binding: int, item: int) -> relax.Expr:
    builder = importer.block_builder
    table, ids = (importer.env[argument] for argument in node.args[:2])
    # Clipped, because an id beyond the table would read other memory.
    rows, width = _shape(table)
    ranges = _row_ranges(rows, width, item, max_binding)
    if len(ranges) == 1:
        return builder.emit(relax.op.take(table, ids, axis=0, mode="clip"))
    # Ranges depend on the ids so that they are not lifted into the weight transform, which would copy them.
    parts = [_range(builder, table, start * width, (count, width), ids) for start, count in ranges]
    starts = [start for start, _ in ranges]

    def take(index: te.Tensor, *tables: te.Tensor) -> te.Tensor:
        def row(*position: Any) -> Any:
            *where, column = position
            wanted, found = index[tuple(where)], None
            for start, rows in reversed(list(zip(starts, tables, strict=True))):
                inside = tirx.max(tirx.min(wanted - start, int(rows.shape[0]) - 1), 0)
                value = rows[inside, column]
                found = value if found is None else tirx.if_then_else(wanted < start + int(rows.shape[0]), value, found)
            return found

        return te.compute((*index.shape, width), row, name="take")

    return builder.emit_te(take, ids, *parts, primfunc_name_hint="take")


def _row_ranges(rows: int, width: int, item: int, max_binding: int) -> list[tuple[int, int]]:
    """Return the fewest aligned ranges (start, count) of a table's rows of at most ``max_binding`` bytes each.

    All ranges but the last have the same size.
    """
    step = ALIGNMENT // math.gcd(ALIGNMENT, width * item)
    parts = -(-rows * width * item // max_binding)
    count = -(-rows // (parts * step)) * step
    return [(start, min(count, rows - start)) for start in range(0, rows, count)]


def _index_select(node: Any, importer: Any) -> relax.Expr:
    value, indices = importer.env[node.args[0]], importer.env[node.args[2]]
    return importer.block_builder.emit(relax.op.take(value, indices, axis=node.args[1], mode="clip"))


def _reshape(node: Any, importer: Any) -> relax.Expr:
    value = importer.env[node.args[0]]
    shape = tuple(int(extent) for extent in node.meta["val"].shape)
    # A reshape that changes nothing would keep `_permuted` from combining transposes.
    return value if shape == _shape(value) else importer.block_builder.emit(relax.op.reshape(value, shape))


def _select(node: Any, importer: Any) -> relax.Expr:
    # TVM's converter uses an index in int64, which WGSL does not have.
    value, (axis, index) = importer.env[node.args[0]], node.args[1:3]
    axis, index = axis % len(value.ty.shape), index % _shape(value)[axis]
    part = importer.block_builder.emit(relax.op.strided_slice(value, [axis], [index], [index + 1]))
    return importer.block_builder.emit(relax.op.squeeze(part, [axis]))


def _upsample_nearest(node: Any, importer: Any) -> relax.Expr:
    # TVM's converter reads other pixels than PyTorch where the size does not double.
    height, width = (int(extent) for extent in node.meta["val"].shape[2:])

    def upsample(image: te.Tensor) -> te.Tensor:
        batch, channels, rows, columns = (int(extent) for extent in image.shape)
        return te.compute(
            (batch, channels, height, width),
            lambda b, c, y, x: image[b, c, y * rows // height, x * columns // width],
            name="upsample",
        )

    return importer.block_builder.emit_te(upsample, importer.env[node.args[0]], primfunc_name_hint="upsample")


def _scaled(node: Any, importer: Any) -> relax.Expr:
    # diffusers divides residuals by a factor that is 1 in most models.
    if isinstance(node.args[1], (int, float)) and node.args[1] == 1 and not node.kwargs:
        return importer.env[node.args[0]]
    return importer.stock[node.target.__name__](node)


def _transpose(node: Any, importer: Any) -> relax.Expr:
    value = importer.env[node.args[0]]
    axes = list(range(len(value.ty.shape)))
    first, second = node.args[1:3]
    axes[first], axes[second] = axes[second], axes[first]
    return _permuted(importer.block_builder, value, axes)


def _permuted(builder: relax.BlockBuilder, value: relax.Expr, axes: list[int]) -> relax.Expr:
    """Return ``value`` with permuted axes, combined with the permutation that made ``value``, if any."""
    binding = builder.lookup_binding(value) if isinstance(value, relax.Var) else None
    if isinstance(binding, relax.Call) and getattr(binding.op, "name", "") == "relax.permute_dims":
        before = binding.attrs.axes
        inner = [int(axis) for axis in before] if before is not None else list(range(len(axes)))[::-1]
        value, axes = binding.args[0], [inner[axis] for axis in axes]
    if axes == list(range(len(axes))):
        return value
    return builder.emit(relax.op.permute_dims(value, axes))


def _sequence_first(builder: relax.BlockBuilder, value: relax.Expr) -> relax.Expr:
    """Return [batch, heads, sequence, channels] as [batch, sequence, heads, channels]; rank 3 has one head."""
    if len(value.ty.shape) == 3:
        batch, length, channels = _shape(value)
        return builder.emit(relax.op.reshape(value, (batch, length, 1, channels)))
    return _permuted(builder, value, [0, 2, 1, 3])


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


def _attention(node: Any, importer: Any, max_binding: int) -> relax.Expr:
    builder = importer.block_builder
    inputs = [importer.env[argument] for argument in node.args[:3]]
    mask_node = _argument(node, 3, "attn_mask", None)
    causal = bool(_argument(node, 5, "is_causal", False))
    if _argument(node, 4, "dropout_p", 0.0) or node.kwargs.get("enable_gqa"):
        raise UnsupportedOperator("scaled_dot_product_attention with dropout or grouped queries")
    if len(inputs[0].ty.shape) not in (3, 4):
        raise UnsupportedOperator(f"scaled_dot_product_attention of rank {len(inputs[0].ty.shape)}")

    query, key, value = (_sequence_first(builder, x) for x in inputs)
    batch, length, heads, channels = _shape(query)
    context, dtype = _shape(key)[1], _dtype(query)
    scale = node.kwargs.get("scale") or 1.0 / math.sqrt(channels)
    mask = None
    if causal:
        blocked = np.full((1, 1, length, context), _masked(dtype), dtype)
        mask = relax.const(np.triu(blocked, 1))
    elif mask_node is not None:
        mask = _additive_mask(builder, importer.env[mask_node], dtype)

    def attend(q: relax.Expr, k: relax.Expr, v: relax.Expr, m: relax.Expr | None) -> relax.Expr:
        scores = builder.emit_te(_scores, q, k, primfunc_name_hint="attention_scores")
        scores = builder.emit(relax.op.multiply(scores, relax.const(scale, dtype)))
        if m is not None:
            scores = builder.emit(relax.op.add(scores, m))
        weights = builder.emit(relax.op.nn.softmax(scores, axis=-1))
        return builder.emit_te(_weighted_values, weights, v, primfunc_name_hint="attention_values")

    item = np.dtype(dtype).itemsize
    rows = _query_rows(batch, length, heads, channels, context, item, max_binding)
    if rows is None:
        result = attend(query, key, value, mask)
    else:
        parts = []
        for b in range(batch):
            k, v = (_part(builder, x, b, 0, context) for x in (key, value))
            for start in range(0, length, rows):
                count = min(rows, length - start)
                m = None if mask is None else _mask_part(builder, mask, b, start, count)
                parts.append(attend(_part(builder, query, b, start, count), k, v, m))
        whole = relax.TensorType((*_shape(query)[:3], _shape(value)[3]), dtype)
        result = builder.emit(relax.op.call_dps_packed(CONCAT, relax.Tuple(parts), whole))
    if len(inputs[0].ty.shape) == 3:
        return builder.emit(relax.op.reshape(result, (batch, length, _shape(value)[3])))
    return _permuted(builder, result, [0, 2, 1, 3])


def _masked(dtype: str) -> float:
    """Return what is added to a masked score: far below any score, but finite, so that no row becomes NaN."""
    return -1e9 if dtype == "float32" else -6e4


def _additive_mask(builder: relax.BlockBuilder, mask: relax.Expr, dtype: str) -> relax.Expr:
    """Return ``mask`` as a rank 4 tensor to add to scores; a boolean mask is true where attention is allowed."""
    if _dtype(mask) == "bool":
        mask = builder.emit(relax.op.where(mask, relax.const(0.0, dtype), relax.const(_masked(dtype), dtype)))
    shape = _shape(mask)
    return mask if len(shape) == 4 else builder.emit(relax.op.reshape(mask, (1,) * (4 - len(shape)) + shape))


def _query_rows(
    batch: int, length: int, heads: int, channels: int, context: int, item: int, max_binding: int
) -> int | None:
    """Return the number of queries whose scores stay under ``max_binding`` bytes; None for all at once.

    A range starts at a multiple of `ALIGNMENT` bytes in its tensor, and ranges of one size share kernels. So the result
    is the largest aligned divisor of ``length``. Where rows cannot be aligned, attention is computed at once.
    """
    row_scores, row_bytes = heads * context * item, heads * channels * item
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
    _, length, heads, channels = _shape(value)
    return _range(builder, value, (batch * length + start) * heads * channels, (1, count, heads, channels))


def _range(
    builder: relax.BlockBuilder, value: relax.Expr, start: int, shape: tuple[int, ...], *tied: relax.Expr
) -> relax.Expr:
    """Return the elements of ``value`` from ``start`` on as ``shape``, without a copy, dependent on ``tied`` too."""
    arguments = relax.Tuple([value, relax.ShapeExpr([start]), *tied])
    return builder.emit(relax.op.call_dps_packed(SLICE, arguments, relax.TensorType(shape, _dtype(value))))


def _mask_part(builder: relax.BlockBuilder, mask: relax.Expr, batch: int, start: int, count: int) -> relax.Expr:
    entries, _, rows, _ = _shape(mask)
    axes, begin, end = [], [], []
    if entries > 1:
        axes, begin, end = [0], [batch], [batch + 1]
    if rows > 1:
        axes, begin, end = [*axes, 2], [*begin, start], [*end, start + count]
    return builder.emit(relax.op.strided_slice(mask, axes, begin, end)) if axes else mask


def unsupported(stage: str, operators: list[str]) -> CaptureError:
    """Return the error for PyTorch operators of ``stage`` that cannot be converted."""
    return CaptureError(
        f"the stage {stage} uses operators that TVM cannot convert: {', '.join(sorted(operators))}",
        "leave the stage out, or add a converter in wgtune/tuner/capture/torch_ops.py",
    )
