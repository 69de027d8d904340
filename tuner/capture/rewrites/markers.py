"""What converters mark in a graph, for its rewrites and for lowering."""

from tvm import relax, te

SLICE = "wgtune.slice"
"""Marker ``SLICE(x, (start,), …)``: the elements of ``x`` from ``start`` on, without a copy."""

CONCAT = "wgtune.concat"
"""Marker ``CONCAT(a, b, …)``: the operands in sequence. The kernels that compute them write into the result."""

ALIGNMENT = 256
"""Bytes of which offsets of storage bindings are multiples (W3C WebGPU, minStorageBufferOffsetAlignment, default)."""

HALF = 2
"""Bytes of an element where values are stored as half floats: ranges that are aligned then are aligned in any case."""


def upsample_nearest(image: te.Tensor, height: int, width: int) -> te.Tensor:
    """Return [batch, channels, height, width] of the nearest pixels of ``image``, as PyTorch chooses them."""
    batch, channels, rows, columns = (int(extent) for extent in image.shape)
    return te.compute(
        (batch, channels, height, width),
        lambda b, c, y, x: image[b, c, y * rows // height, x * columns // width],
        name="upsample",
    )


def range_of(
    builder: relax.BlockBuilder, value: relax.Expr, start: int, shape: tuple[int, ...], *tied: relax.Expr
) -> relax.Expr:
    """Return the elements of ``value`` from ``start`` on as ``shape``, without a copy, dependent on ``tied`` too."""
    arguments = relax.Tuple([value, relax.ShapeExpr([start]), *tied])
    return builder.emit(relax.op.call_dps_packed(SLICE, arguments, relax.TensorType(shape, str(value.ty.dtype))))
