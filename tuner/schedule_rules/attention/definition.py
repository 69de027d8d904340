"""What attention computes, unfused: scores, their softmax, weighted values. A kernel's identity and reference.

Tensors lie as ``[batch, sequence, heads, channels]``, which is how projections write and read them. All arithmetic is
in float32 whatever the type of the tensors, and so is a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import te, tirx

COMPUTED = "float32"
"""Type of scores, weights and sums."""

MASKED = -1e9
"""Score of a key that a query may not see: far below any score, but finite, so that no row becomes NaN."""


@dataclass(frozen=True)
class Attention:
    """Sizes and options of scaled dot-product attention.

    Attributes:
        batch: Entries.
        queries: Length of the sequence of queries.
        keys: Length of that of keys and values.
        heads: Heads.
        channels: Channels of a head.
        scale: Factor of the scores.
        causal: Whether a query sees only the keys up to its own position.
        mask: Shape of what is added to scaled scores, of 4 dimensions, each 1 or full; None where nothing is.
        dtype: Type of queries, keys, values and results.
    """

    batch: int
    queries: int
    keys: int
    heads: int
    channels: int
    scale: float
    causal: bool = False
    mask: tuple[int, ...] | None = None
    dtype: str = "float32"

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of queries, keys, values and, if there is one, the mask."""
        own = (self.batch, self.queries, self.heads, self.channels)
        context = (self.batch, self.keys, self.heads, self.channels)
        return (own, context, context, *([self.mask] if self.mask is not None else []))


def attention_of(query: te.Tensor, key: te.Tensor, value: te.Tensor, *mask: te.Tensor, like: Attention) -> te.Tensor:
    """Return attention as tensor expressions, shaped as ``query``; ``like`` has scale, causality and type."""
    batch, queries, heads, channels = query.shape
    keys = key.shape[1]

    def wide(element: Any) -> Any:
        return element if like.dtype == COMPUTED else element.astype(COMPUTED)

    channel = te.reduce_axis((0, channels), "c")
    scores = te.compute(
        (batch, heads, queries, keys),
        lambda b, h, i, j: te.sum(wide(query[b, i, h, channel]) * wide(key[b, j, h, channel]), axis=channel),
        name="scores",
    )

    def masked(b: Any, h: Any, i: Any, j: Any) -> Any:
        score = scores[b, h, i, j] * tirx.const(like.scale, COMPUTED)
        for added in mask:
            where = [axis if int(extent) > 1 else 0 for axis, extent in zip((b, h, i, j), added.shape, strict=True)]
            score = score + added[tuple(where)]
        return tirx.Select(j <= i, score, tirx.const(MASKED, COMPUTED)) if like.causal else score

    scaled = te.compute(scores.shape, masked, name="scaled")
    other = te.reduce_axis((0, keys), "j")
    most = te.compute((batch, heads, queries), lambda b, h, i: te.max(scaled[b, h, i, other], axis=other), name="most")
    weights = te.compute(scores.shape, lambda b, h, i, j: te.exp(scaled[b, h, i, j] - most[b, h, i]), name="weights")
    summed = te.reduce_axis((0, keys), "k")
    total = te.compute(
        (batch, heads, queries), lambda b, h, i: te.sum(weights[b, h, i, summed], axis=summed), name="total"
    )
    place = te.reduce_axis((0, keys), "t")
    values = te.compute(
        query.shape,
        lambda b, i, h, c: te.sum(weights[b, h, i, place] * wide(value[b, place, h, c]), axis=place),
        name="values",
    )
    return te.compute(
        query.shape, lambda b, i, h, c: (values[b, i, h, c] / total[b, h, i]).astype(like.dtype), name="attention"
    )


def attention_func(like: Attention) -> tirx.PrimFunc:
    """Return the unscheduled kernel, with 64-bit indices as Relax makes it."""
    dtypes = (like.dtype, like.dtype, like.dtype, COMPUTED)
    inputs = [
        te.placeholder(shape, dtype, f"x{index}")
        for index, (shape, dtype) in enumerate(zip(like.inputs, dtypes, strict=False))
    ]
    return te.create_prim_func([*inputs, attention_of(*inputs, like=like)], "int64")
