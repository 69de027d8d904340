"""Attention in one pass over the keys, as TensorIR bound to workgroups and threads: no score reaches memory.

A thread has a few queries, or with others a share of their channels, and holds these channels and those of the results
in registers. For each few keys it computes scores, the greatest so far, and exponentials; where the greatest has grown,
earlier sums shrink by the same factor. At the end they are divided once (Milakov and Gimelshein, Online normalizer
calculation for softmax, 2018; Dao et al., FlashAttention, 2022).

Scores are kept as logarithms to the base 2, which GPUs compute: queries are scaled by log2 e too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from tvm import tirx
from tvm.tirx import AllocBuffer, BufferStore, For, ForKind, IfThenElse, SeqStmt

from ..rule import BOUNDED_GRID
from ..tiles import vector_width
from .definition import COMPUTED, Attention
from .tiling import Sizes, Tiling

_LOWEST = -3e38
"""Greatest score before the first key, and that of keys beyond the end: finite, so that a difference never is NaN."""

_LEAST_MASK = -1e30
"""Least value of a mask: 2 to its power is 0, and a factor does not make it infinite."""

_TOGETHER = 2
"""Keys whose scores are summed side by side: more sums that do not wait for each other."""

_COPIED_TOGETHER = 4
"""Most vectors that a thread copies without a loop, so that their loads wait together."""

_INDEX = "int32"


def online_func(kernel: Attention, tiling: Tiling) -> tirx.PrimFunc:
    """Return the kernel with the parameters of `attention_func`; raises ValueError where the tiling does not fit."""
    return _Online(Sizes(kernel, tiling)).func()


class _Online:
    def __init__(self, sizes: Sizes) -> None:
        self._sizes, self._kernel, self._tiling = sizes, sizes.kernel, sizes.tiling
        kernel, tiling = self._kernel, self._tiling
        names = ("query", "key", "value", "mask")
        self._inputs = [
            tirx.decl_buffer(shape, COMPUTED if name == "mask" else kernel.dtype, name)
            for shape, name in zip(kernel.inputs, names, strict=False)
        ]
        self._output = tirx.decl_buffer(kernel.inputs[0], kernel.dtype, "result")
        self._local: list[Any] = []
        self._x, self._y, self._tile, self._head = (
            tirx.Var(name, _INDEX) for name in ("part", "group", "tile", "head")
        )
        own = (tiling.rows, sizes.channels)
        self._query, self._sum = self._registers("own_query", own), self._registers("own_sum", own)
        self._score = self._registers("score", (sizes.scores,))
        self._most, self._total = (self._registers(name, (tiling.rows,)) for name in ("most", "total"))
        self._shrink, self._new = self._registers("shrink", (1,)), self._registers("new", (1,))
        self._loaded = self._registers("loaded", (sizes.vector,))
        if tiling.parts > 1:
            self._partial = self._shared("part_scores", (tiling.groups, tiling.parts, sizes.partial_stride))
        if sizes.combined:
            self._scores = self._shared("scores", (tiling.groups, sizes.scores))
        if tiling.staged:
            copied = (tiling.staged * tiling.keys, kernel.channels)
            self._keys, self._values = (self._shared(name, copied, kernel.dtype) for name in ("keys", "values"))

    def func(self) -> tirx.PrimFunc:
        kernel, tiling = self._kernel, self._tiling
        tiles = -(-kernel.queries // tiling.queries)
        body = _sequence(
            [*(AllocBuffer(buffer) for buffer in self._local), *self._start(), self._pass(), *self._finish()]
        )
        for variable, extent, axis in (
            (self._x, tiling.parts, "threadIdx.x"),
            (self._y, tiling.groups, "threadIdx.y"),
            (self._head, kernel.batch * kernel.heads, "blockIdx.y"),
            (self._tile, tiles, "blockIdx.x"),
        ):
            thread = tirx.IterVar(None, tirx.Var(axis, _INDEX), tirx.IterVar.ThreadIndex, axis)
            body = For(variable, 0, extent, ForKind.THREAD_BINDING, body, thread)
        func = tirx.PrimFunc([*self._inputs, self._output], body)
        return func.with_attr("global_symbol", "main").with_attr({"tirx.noalias": True, BOUNDED_GRID: True})

    # Buffers and places.

    def _registers(self, name: str, shape: tuple[int, ...]) -> Any:
        return self._allocated(name, shape, COMPUTED, "local")

    def _shared(self, name: str, shape: tuple[int, ...], dtype: str = COMPUTED) -> Any:
        return self._allocated(name, shape, dtype, "shared")

    def _allocated(self, name: str, shape: tuple[int, ...], dtype: str, scope: str) -> Any:
        buffer = tirx.decl_buffer(shape, dtype, name, scope=scope)
        self._local.append(buffer)
        return buffer

    def _row(self, row: int) -> Any:
        """Return the place of a thread's query."""
        return self._tile * self._tiling.queries + self._y * self._tiling.rows + row

    def _seen_row(self, row: int) -> Any:
        """Return the same, the last query for those beyond the end."""
        inside = self._kernel.queries % self._tiling.queries == 0
        return self._row(row) if inside else tirx.min(self._row(row), self._kernel.queries - 1)

    def _batch_and_head(self) -> tuple[Any, Any]:
        heads = self._kernel.heads
        return tirx.floordiv(self._head, heads), tirx.floormod(self._head, heads)

    def _channel(self, vector: int) -> Any:
        """Return a thread's vector of channels; threads that share a query take turns, as memory lies."""
        return _ramp((vector * self._tiling.parts + self._x) * self._sizes.vector, self._sizes.vector)

    def _own(self, vector: int) -> Any:
        return _ramp(vector * self._sizes.vector, self._sizes.vector)

    def _wide(self, value: Any, lanes: int) -> Any:
        """Return loaded elements in the type of the arithmetic."""
        if self._kernel.dtype == COMPUTED:
            return value
        return tirx.Cast(COMPUTED if lanes == 1 else f"{COMPUTED}x{lanes}", value)

    # Before and after the keys.

    def _start(self) -> Iterator[Any]:
        batch, head = self._batch_and_head()
        lanes = self._sizes.vector
        for row in range(self._tiling.rows):
            for vector in range(self._sizes.vectors):
                place = [batch, self._seen_row(row), head, self._channel(vector)]
                scale = _splat(_float(self._kernel.scale * math.log2(math.e)), lanes)
                loaded = self._wide(self._inputs[0][tuple(place)], lanes)
                yield BufferStore(self._query, loaded * scale, [row, self._own(vector)])
                yield BufferStore(self._sum, _splat(_float(0.0), lanes), [row, self._own(vector)])
            yield BufferStore(self._most, _float(_LOWEST), [row])
            yield BufferStore(self._total, _float(0.0), [row])

    def _finish(self) -> Iterator[Any]:
        batch, head = self._batch_and_head()
        kernel, lanes = self._kernel, self._sizes.vector
        narrow = kernel.dtype if lanes == 1 else f"{kernel.dtype}x{lanes}"
        for row in range(self._tiling.rows):
            stores = [BufferStore(self._total, _float(1.0) / self._total[row], [row])]
            for vector in range(self._sizes.vectors):
                value = self._sum[row, self._own(vector)] * _splat(self._total[row], lanes)
                if kernel.dtype != COMPUTED:
                    value = tirx.Cast(narrow, value)
                stores.append(BufferStore(self._output, value, [batch, self._row(row), head, self._channel(vector)]))
            store = _sequence(stores)
            inside = kernel.queries % self._tiling.queries == 0
            yield store if inside else IfThenElse(self._row(row) < kernel.queries, store, None)

    # Over the keys.

    def _pass(self) -> Any:
        """Return the loop over all keys that a query of the workgroup sees."""
        keys, staged, steps = self._tiling.keys, self._tiling.staged, self._sizes.steps
        first = tirx.Var("first", _INDEX)
        batch, head = self._batch_and_head()
        if not staged:

            def read(source: Any, key: int, vector: int) -> Any:
                return source[batch, self._seen_key(first * keys + key), head, self._channel(vector)]

            body = self._step(first * keys, partial(read, self._inputs[1]), partial(read, self._inputs[2]))
            return For(first, 0, self._seen_steps(keys, steps), ForKind.SERIAL, body)

        step = tirx.Var("step", _INDEX)

        def copied(source: Any, key: int, vector: int) -> Any:
            return source[step * keys + key, self._channel(vector)]

        start = first * (staged * keys)
        body = self._step(start + step * keys, partial(copied, self._keys), partial(copied, self._values))
        left = staged if steps % staged == 0 else tirx.min(staged, steps - first * staged)
        copies = self._copies(start)
        inner = For(step, 0, left, ForKind.SERIAL, body)
        tiles = self._seen_steps(staged * keys, -(-steps // staged))
        return For(first, 0, tiles, ForKind.SERIAL, _sequence([*copies, inner]))

    def _seen_steps(self, keys: int, steps: int) -> Any:
        """Return how many of ``steps`` steps of ``keys`` keys have some that a query of the workgroup sees."""
        if not self._kernel.causal:
            return steps
        seen = (self._tile + 1) * self._tiling.queries
        return tirx.min(tirx.floordiv(seen + (keys - 1), keys), steps)

    def _seen_key(self, key: Any) -> Any:
        """Return the place of a key, the last one for those beyond the end."""
        inside = self._kernel.keys % self._tiling.keys == 0
        return key if inside else tirx.min(key, self._kernel.keys - 1)

    def _copies(self, start: Any) -> list[Any]:
        """Copy keys and values to workgroup memory, by all threads of the workgroup."""
        kernel, tiling = self._kernel, self._tiling
        batch, head = self._batch_and_head()
        held = tiling.staged * tiling.keys
        lanes = vector_width(kernel.channels)
        vectors = held * kernel.channels // lanes
        turns = -(-vectors // tiling.threads)

        def turned(turn: Any) -> Any:
            element = (turn * tiling.threads + self._y * tiling.parts + self._x) * lanes
            key, channel = tirx.floordiv(element, kernel.channels), tirx.floormod(element, kernel.channels)
            place = start + key if kernel.keys % held == 0 else tirx.min(start + key, kernel.keys - 1)
            copies = [
                BufferStore(copy, source[batch, place, head, _ramp(channel, lanes)], [key, _ramp(channel, lanes)])
                for copy, source in ((self._keys, self._inputs[1]), (self._values, self._inputs[2]))
            ]
            body = _sequence(copies)
            return body if turns * tiling.threads == vectors else IfThenElse(element < vectors * lanes, body, None)

        if turns <= _COPIED_TOGETHER:
            return [turned(turn) for turn in range(turns)]
        turn = tirx.Var("turn", _INDEX)
        return [For(turn, 0, turns, ForKind.SERIAL, turned(turn))]

    def _step(self, first: Any, key: Callable[[int, int], Any], value: Callable[[int, int], Any]) -> Any:
        """Return what is done for the keys from ``first`` on."""
        statements = [*self._score_shares(key)]
        if self._tiling.parts > 1:
            statements += self._exchange()
        statements += [*self._masked(first), *self._exponentials(), *self._weighted(value)]
        return _sequence(statements)

    def _score_shares(self, key: Callable[[int, int], Any]) -> Iterator[Any]:
        """Multiply queries and keys over a thread's channels, a few keys side by side."""
        lanes, keys = self._sizes.vector, self._tiling.keys
        for first in range(0, keys, _TOGETHER):
            for vector in range(self._sizes.vectors):
                for place in range(first, min(first + _TOGETHER, keys)):
                    yield BufferStore(self._loaded, self._wide(key(place, vector), lanes), [_ramp(0, lanes)])
                    for row in range(self._tiling.rows):
                        score = row * keys + place
                        terms = [self._query[row, vector * lanes + lane] * self._loaded[lane] for lane in range(lanes)]
                        if vector > 0:
                            terms.insert(0, self._score[score])
                        yield BufferStore(self._score, functools.reduce(_plus, terms), [score])

    def _exchange(self) -> Iterator[Any]:
        """Add the shares of the scores by way of workgroup memory."""
        lanes, parts = self._sizes.exchange_vector, self._tiling.parts
        scores = range(0, self._sizes.scores, lanes)
        for score in scores:
            yield BufferStore(self._partial, self._score[_ramp(score, lanes)], [self._y, self._x, _ramp(score, lanes)])
        if not self._sizes.combined:
            for score in scores:
                yield BufferStore(self._score, self._shares_added(score, parts), [_ramp(score, lanes)])
            return
        mine = self._x * self._sizes.combined
        for score in range(0, self._sizes.combined, lanes):
            added = self._shares_added(mine + score, parts)
            store = BufferStore(self._scores, added, [self._y, _ramp(mine + score, lanes)])
            yield store if self._sizes.scores >= parts else IfThenElse(self._x < self._sizes.scores, store, None)
        for score in scores:
            yield BufferStore(self._score, self._scores[self._y, _ramp(score, lanes)], [_ramp(score, lanes)])

    def _shares_added(self, score: Any, parts: int) -> Any:
        lanes = self._sizes.exchange_vector
        shares = [self._partial[self._y, part, _ramp(score, lanes)] for part in range(parts)]
        total = shares[0]
        for share in shares[1:]:
            total = total + share
        return total

    def _masked(self, first: Any) -> Iterator[Any]:
        """Add the mask, and make the scores of unseen keys the lowest."""
        kernel, tiling = self._kernel, self._tiling
        for row in range(tiling.rows):
            for place in range(tiling.keys):
                score = self._score[row * tiling.keys + place]
                if kernel.mask is not None:
                    score = score + self._added_mask(row, self._seen_key(first + place))
                tests = []
                if kernel.causal:
                    tests.append(first + place <= self._row(row))
                if kernel.keys % tiling.keys:
                    tests.append(first + place < kernel.keys)
                if tests:
                    score = tirx.Select(tirx.all(*tests), score, _float(_LOWEST))
                if tests or kernel.mask is not None:
                    yield BufferStore(self._score, score, [row * tiling.keys + place])

    def _added_mask(self, row: int, key: Any) -> Any:
        batch, head = self._batch_and_head()
        assert self._kernel.mask is not None
        where = [
            place if extent > 1 else 0
            for place, extent in zip((batch, head, self._seen_row(row), key), self._kernel.mask, strict=True)
        ]
        least = tirx.max(self._inputs[3][tuple(where)], _float(_LEAST_MASK))
        return least * _float(math.log2(math.e))

    def _exponentials(self) -> Iterator[Any]:
        """Turn scores into weights relative to the greatest score so far, to which earlier sums are adapted."""
        lanes, keys = self._sizes.vector, self._tiling.keys
        for row in range(self._tiling.rows):
            places = range(row * keys, (row + 1) * keys)
            yield BufferStore(self._new, _folded(tirx.max, [self._most[row], *(self._score[p] for p in places)]), [0])
            yield BufferStore(self._shrink, tirx.exp2(self._most[row] - self._new[0]), [0])
            yield BufferStore(self._most, self._new[0], [row])
            for place in places:
                yield BufferStore(self._score, tirx.exp2(self._score[place] - self._new[0]), [place])
            kept = self._total[row] * self._shrink[0]
            yield BufferStore(self._total, kept + _folded(_plus, [self._score[p] for p in places]), [row])
            for vector in range(self._sizes.vectors):
                shrunk = self._sum[row, self._own(vector)] * _splat(self._shrink[0], lanes)
                yield BufferStore(self._sum, shrunk, [row, self._own(vector)])

    def _weighted(self, value: Callable[[int, int], Any]) -> Iterator[Any]:
        """Add values times their weights."""
        lanes, keys = self._sizes.vector, self._tiling.keys
        whole = _ramp(0, lanes)
        for place in range(keys):
            for vector in range(self._sizes.vectors):
                yield BufferStore(self._loaded, self._wide(value(place, vector), lanes), [whole])
                for row in range(self._tiling.rows):
                    product = _splat(self._score[row * keys + place], lanes) * self._loaded[whole]
                    added = self._sum[row, self._own(vector)] + product
                    yield BufferStore(self._sum, added, [row, self._own(vector)])


def _ramp(base: Any, lanes: int) -> Any:
    return tirx.Ramp(base, 1, lanes) if lanes > 1 else base


def _splat(value: Any, lanes: int) -> Any:
    return tirx.Broadcast(value, lanes) if lanes > 1 else value


def _float(value: float) -> Any:
    return tirx.FloatImm(COMPUTED, value)


def _plus(a: Any, b: Any) -> Any:
    return a + b


def _folded(combine: Callable[[Any, Any], Any], values: Sequence[Any]) -> Any:
    """Combine values pairwise, so that few of the operations wait for each other."""
    left = list(values)
    while len(left) > 1:
        odd = left[-1:] if len(left) % 2 else []
        left = [combine(a, b) for a, b in zip(left[::2], left[1::2], strict=False)] + odd
    return left[0]


def _sequence(statements: Sequence[Any]) -> Any:
    return statements[0] if len(statements) == 1 else SeqStmt(list(statements))
