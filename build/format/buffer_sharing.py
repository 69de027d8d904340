"""Assigns tensors to GPU buffers; tensors that are never alive at the same time share one.

One storage is one GPU buffer and holds one tensor at a time. Packing several tensors of one dispatch into ranges of
one buffer would save more, but WebGPU refuses a buffer that one dispatch binds both read-only and writable (W3C
WebGPU, 3.4.5, usage scopes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 256
"""Bytes: WebGPU's default ``minStorageBufferOffsetAlignment``. Sizes are rounded to it too, for better sharing."""


def aligned(nbytes: int) -> int:
    """Return ``nbytes`` rounded up to `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A tensor's bytes, and the first and last dispatch at which it is alive, both included."""

    nbytes: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive at some dispatch."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """``storage_of[i]`` is the storage of tensor i; ``storages`` gives each storage's bytes."""

    storage_of: tuple[int, ...]
    storages: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all storages."""
        return sum(self.storages)


def assign_storages(tensors: Sequence[Lifetime]) -> MemoryPlan:
    """Assign each tensor a storage such that two tensors alive at once never share one.

    Largest tensor first, each into the smallest storage that is free for its whole life ("greedy by size for shared
    objects", Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
    """
    storage_of = [0] * len(tensors)
    storages: list[int] = []
    tenants: list[list[Lifetime]] = []
    for index in sorted(range(len(tensors)), key=lambda i: (-tensors[i].nbytes, tensors[i].first, i)):
        tensor = tensors[index]
        free = [s for s in range(len(storages)) if not any(tensor.overlaps(other) for other in tenants[s])]
        if free:
            # Storages were opened largest first, so every free one is large enough.
            chosen = min(free, key=lambda s: storages[s])
        else:
            chosen = len(storages)
            storages.append(aligned(tensor.nbytes))
            tenants.append([])
        tenants[chosen].append(tensor)
        storage_of[index] = chosen
    return MemoryPlan(tuple(storage_of), tuple(storages))
