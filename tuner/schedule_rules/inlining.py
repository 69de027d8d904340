"""What comes before a reduction is computed where it is loaded, and what comes after it where it is stored."""

from __future__ import annotations

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

from .tiles import vector_width


def inline_producers(schedule: Schedule, block: SBlockRV) -> None:
    """Inline all blocks that ``block`` reads from, such as padding; raises ScheduleError where one is a reduction."""
    while producers := schedule.get_producers(block):
        for producer in producers:
            schedule.compute_inline(producer)


def result_in_registers(schedule: Schedule, block: SBlockRV) -> SBlockRV:
    """Keep what ``block`` computes in registers; return the block that stores it, with what follows inlined.

    Raises:
        ScheduleError, ValueError: as `last_consumer`.
    """
    result = last_consumer(schedule, block)
    if result is None:
        return schedule.cache_write(block, 0, "local")
    schedule.set_scope(block, 0, "local")
    return result


def copy_operand(schedule: Schedule, block: SBlockRV, read: int, scope: str = "shared") -> SBlockRV:
    """Return a copy of a read in workgroup memory or in registers (``local``), what comes before inlined into it."""
    copy = schedule.cache_read(block, read, scope)
    inline_producers(schedule, copy)
    return copy


def store_vectors(schedule: Schedule, result: SBlockRV, at: LoopRV, outer: int, vector: int) -> None:
    """Store a thread's results at loop ``at``, ``outer`` loops deep, up to ``vector`` neighbours at a time."""
    schedule.reverse_compute_at(result, at, preserve_unit_loops=True)
    *over, last = schedule.get_loops(result)[outer:]
    # What is stored may be fewer than the sums: one for a value and its gate.
    kept, lanes = schedule.split(last, [None, min(vector, vector_width(int(schedule.get(last).extent)))])
    schedule.vectorize(lanes)
    for loop in (*over, kept):
        schedule.unroll(loop)


def start_sums(schedule: Schedule, block: SBlockRV, at: LoopRV, outer: int) -> None:
    """Set a thread's sums to zero before loop ``at``, ``outer`` loops deep."""
    start = schedule.decompose_reduction(block, at)
    *over, last = schedule.get_loops(start)[outer:]
    schedule.vectorize(last)
    for loop in over:
        schedule.unroll(loop)


def last_consumer(schedule: Schedule, block: SBlockRV) -> SBlockRV | None:
    """Inline the element-wise blocks after ``block`` into the last one, and return that; None where none follows.

    Raises:
        ScheduleError: a block after it cannot be inlined.
        ValueError: several results depend on it.
    """
    after = _descendants(schedule, block)
    if not after:
        return None
    ends = [one for one in after.values() if not schedule.get_consumers(one)]
    if len(ends) != 1:
        raise ValueError("the reduction has several results")
    names = [_name(schedule, one) for one in schedule.get_child_blocks(schedule.get_sblock("root"))]
    last = _name(schedule, ends[0])
    for name in names:
        if name in after and name != last:
            schedule.compute_inline(after[name])
    # Broadcasts that the last block reads, such as the reshaped bias, are no part of the reduction.
    for producer in schedule.get_producers(after[last]):
        if _name(schedule, producer) != _name(schedule, block):
            _inline_with_producers(schedule, producer)
    return after[last]


def _descendants(schedule: Schedule, block: SBlockRV) -> dict[str, SBlockRV]:
    """Return all blocks that depend on ``block``, by name."""
    found: dict[str, SBlockRV] = {}
    waiting = list(schedule.get_consumers(block))
    while waiting:
        one = waiting.pop()
        if _name(schedule, one) not in found:
            found[_name(schedule, one)] = one
            waiting += schedule.get_consumers(one)
    return found


def _name(schedule: Schedule, block: SBlockRV) -> str:
    return str(schedule.get(block).name_hint)


def _inline_with_producers(schedule: Schedule, block: SBlockRV) -> None:
    for producer in schedule.get_producers(block):
        _inline_with_producers(schedule, producer)
    schedule.compute_inline(block)
