"""How attention is shared out to workgroups and threads, and the sizes that follow."""

from __future__ import annotations

from dataclasses import dataclass

from ..tiles import vector_width
from .definition import Attention

_FEW_PARTS = 2
"""Most shares of a score that every thread adds for itself; of more each thread adds some and tells the others."""


@dataclass(frozen=True)
class Tiling:
    """How work is shared out.

    Attributes:
        rows: Queries of a thread.
        parts: Threads that share the channels of a query.
        groups: Such sets of threads in a workgroup.
        keys: Keys of a step, whose scores are in registers.
        staged: Steps whose keys and values are copied to workgroup memory together; 0 where each thread reads its own.
    """

    rows: int
    parts: int
    groups: int
    keys: int
    staged: int

    @property
    def threads(self) -> int:
        """Threads of a workgroup."""
        return self.parts * self.groups

    @property
    def queries(self) -> int:
        """Queries of a workgroup."""
        return self.rows * self.groups


class Sizes:
    """What follows from a kernel and a tiling; raises ValueError where they do not fit each other."""

    def __init__(self, kernel: Attention, tiling: Tiling) -> None:
        counts = (tiling.rows, tiling.parts, tiling.groups, tiling.keys)
        if min(*counts, tiling.staged + 1) < 1 or kernel.channels % tiling.parts:
            raise ValueError(f"attention over {kernel.channels} channels cannot be tiled as {tiling}")
        if tiling.staged * tiling.keys == 1:
            # TVM takes a copy that one row of threads makes as read by the threads that made it, and puts no barrier
            # behind it. A key that is used once gains nothing from a copy either.
            raise ValueError("a single key is not copied to workgroup memory")
        self.kernel, self.tiling = kernel, tiling
        self.channels = kernel.channels // tiling.parts
        """Channels of a thread."""
        self.vector = vector_width(self.channels)
        self.vectors = self.channels // self.vector
        self.scores = tiling.rows * tiling.keys
        """Scores of a thread, or of the threads that share rows."""
        self.combined = max(1, self.scores // tiling.parts) if tiling.parts > _FEW_PARTS else 0
        """Scores that a thread adds up for the others, the last threads none if there are few; 0: each adds all."""
        if self.combined > 1 and self.combined * tiling.parts != self.scores:
            raise ValueError(f"{self.scores} scores cannot be shared out to {tiling.parts} threads")
        if self.combined == 1 and self.scores > tiling.parts:
            raise ValueError(f"{self.scores} scores are too many for {tiling.parts} threads")
        self.exchange_vector = vector_width(self.combined or self.scores)
        self.steps = -(-kernel.keys // tiling.keys)

    @property
    def partial_stride(self) -> int:
        """Places of a thread's shares of scores; the last ones are free, so that threads use different banks."""
        return self.scores + self.exchange_vector

    @property
    def staged_bytes(self) -> int:
        """Bytes of workgroup memory for keys and values."""
        item = 2 if self.kernel.dtype == "float16" else 4
        return 2 * self.tiling.staged * self.tiling.keys * self.kernel.channels * item

    @property
    def exchanged_bytes(self) -> int:
        """Bytes of workgroup memory for scores."""
        if self.tiling.parts == 1:
            return 0
        totals = self.scores * self.tiling.groups if self.combined else 0
        return 4 * (self.tiling.threads * self.partial_stride + totals)

    @property
    def registers(self) -> int:
        """Registers of a thread, without addresses."""
        own = self.tiling.rows * (2 * self.channels + 2)
        if self.tiling.parts > 1 and not self.tiling.staged:
            # Places of keys, which values share.
            own += self.tiling.keys * self.vectors // 2
        return own + self.scores + 2 * self.vector

    @property
    def statements(self) -> int:
        """Vector multiply-adds that are written out."""
        return 2 * self.scores * self.vectors
