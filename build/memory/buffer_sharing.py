"""Assigns tensors to ranges of GPU buffers; tensors that are never alive at the same time share memory.

WebGPU refuses a buffer that one dispatch binds both read-only and writable (W3C WebGPU, 3.4.5, usage scopes). So what
a dispatch writes lies in another buffer than what it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..format.plan import aligned


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
    """Tensor i lies at byte ``places[i][1]`` of storage ``places[i][0]``; ``storages`` gives each storage's bytes."""

    places: tuple[tuple[int, int], ...]
    storages: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all storages."""
        return sum(self.storages)


def assign_storages(tensors: Sequence[Lifetime], apart: Mapping[int, Collection[int]]) -> MemoryPlan:
    """Assign each tensor a range of a storage such that two tensors alive at once never overlap.

    Largest tensor first, each into the smallest gap that is free for its whole life ("greedy by size", Pisarchyk and
    Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020); where there is none, a new storage.

    Args:
        tensors: the tensors.
        apart: for a tensor those that may not lie in one storage with it; of two, either may have the other.
    """
    places: list[tuple[int, int]] = [(0, 0)] * len(tensors)
    storages: list[int] = []
    tenants: list[list[int]] = []
    excluded: list[set[int]] = [set(apart.get(index, ())) for index in range(len(tensors))]
    for index, others in enumerate(list(map(set, excluded))):
        for other in others:
            excluded[other].add(index)
    for index in sorted(range(len(tensors)), key=lambda i: (-tensors[i].nbytes, tensors[i].first, i)):
        tensor, size = tensors[index], aligned(tensors[index].nbytes)
        gaps: list[tuple[int, int, int]] = []
        for storage, inside in enumerate(tenants):
            if excluded[index].isdisjoint(inside):
                alive = [
                    (places[i][1], places[i][1] + aligned(tensors[i].nbytes))
                    for i in inside
                    if tensors[i].overlaps(tensor)
                ]
                gaps += [(gap - size, storage, start) for start, gap in _gaps(alive, storages[storage]) if gap >= size]
        if gaps:
            _, storage, start = min(gaps)
        else:
            storage, start = len(storages), 0
            storages.append(size)
            tenants.append([])
        tenants[storage].append(index)
        places[index] = (storage, start)
    return MemoryPlan(tuple(places), tuple(storages))


def _gaps(taken: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return the start and bytes of each free range of ``size`` bytes, of which the ranges ``taken`` are not free."""
    found, end = [], 0
    for start, stop in [*sorted(taken), (size, size)]:
        if start > end:
            found.append((end, start - end))
        end = max(end, stop)
    return found
