"""Converters from PyTorch to Relax for operators that TVM's importer lacks, or for which it makes slow kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import relax, te, tirx

from ...support.enums import WeightPrecision
from ...support.errors import CaptureError
from ..ir import CaptureOptions
from .attention import attention
from .relax_values import argument, dtype_of, permuted
from .rewrites.graph import shape_of
from .rewrites.markers import ALIGNMENT, range_of, upsample_nearest

Converter = Callable[[Any, Any], relax.Expr]


def make_converters(options: CaptureOptions) -> dict[str, Converter]:
    """Return converters by PyTorch operator name, for TVM's importer."""

    def attend(node: Any, importer: Any) -> relax.Expr:
        return attention(node, importer, options)

    def embedding(node: Any, importer: Any) -> relax.Expr:
        # Embedding tables are half floats unless weights are not.
        return _embedding(node, importer, options.max_binding, 4 if options.weights is WeightPrecision.F32 else 2)

    return {
        "scaled_dot_product_attention.default": attend,
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


def _same(node: Any, importer: Any) -> relax.Expr:
    return importer.env[node.args[0]]


def _to_dtype(node: Any, importer: Any) -> relax.Expr:
    value = importer.env[node.args[0]]
    dtype = importer._convert_data_type(node.args[1], importer.env)
    return value if dtype_of(value) == str(dtype) else importer.block_builder.emit(relax.op.astype(value, dtype))


def _where_scalar(node: Any, importer: Any) -> relax.Expr:
    condition, value = importer.env[node.args[0]], importer.env[node.args[1]]
    return importer.block_builder.emit(relax.op.where(condition, value, relax.const(node.args[2], dtype_of(value))))


def _argmax(node: Any, importer: Any) -> relax.Expr:
    # torch returns int64, which WGSL does not have.
    index = relax.op.argmax(
        importer.env[node.args[0]], argument(node, 1, "dim", None), argument(node, 2, "keepdim", False)
    )
    return importer.block_builder.emit(relax.op.astype(importer.block_builder.emit(index), "int32"))


def _embedding(node: Any, importer: Any, max_binding: int, item: int) -> relax.Expr:
    builder = importer.block_builder
    table, ids = (importer.env[argument] for argument in node.args[:2])
    # Clipped, because an id beyond the table would read other memory.
    rows, width = shape_of(table)
    ranges = _row_ranges(rows, width, item, max_binding)
    if len(ranges) == 1:
        return builder.emit(relax.op.take(table, ids, axis=0, mode="clip"))
    # Ranges depend on the ids so that they are not lifted into the weight transform, which would copy them.
    parts = [range_of(builder, table, start * width, (count, width), ids) for start, count in ranges]
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
    return value if shape == shape_of(value) else importer.block_builder.emit(relax.op.reshape(value, shape))


def _select(node: Any, importer: Any) -> relax.Expr:
    # TVM's converter uses an index in int64, which WGSL does not have.
    value, (axis, index) = importer.env[node.args[0]], node.args[1:3]
    axis, index = axis % len(value.ty.shape), index % shape_of(value)[axis]
    part = importer.block_builder.emit(relax.op.strided_slice(value, [axis], [index], [index + 1]))
    return importer.block_builder.emit(relax.op.squeeze(part, [axis]))


def _upsample_nearest(node: Any, importer: Any) -> relax.Expr:
    size = tuple(int(extent) for extent in node.meta["val"].shape[2:])
    image = importer.env[node.args[0]]
    return importer.block_builder.emit(relax.op.image.resize2d(image, size, layout="NCHW", method="nearest_neighbor"))


def legalize_upsample(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Legalize the ``relax.image.resize2d`` of `make_converters` to TensorIR (`tvm.relax.transform.LegalizeOps`).

    TVM's own reads other pixels than PyTorch where the size does not double.
    """
    height, width = (int(extent) for extent in call.args[1].values)
    return builder.call_te(upsample_nearest, call.args[0], height, width, primfunc_name_hint="upsample")


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
    return permuted(importer.block_builder, value, axes)


def unsupported(stage: str, operators: list[str]) -> CaptureError:
    """Return the error for PyTorch operators of ``stage`` that cannot be converted."""
    return CaptureError(
        f"the stage {stage} uses operators that TVM cannot convert: {', '.join(sorted(operators))}",
        "leave the stage out, or add a converter in wgtune/tuner/capture/torch_ops.py",
    )
