"""What comes before a reduction is computed where it is loaded, and what comes after it where it is stored."""

from __future__ import annotations

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV


def inline_producers(schedule: Schedule, block: SBlockRV) -> None:
    """Inline all blocks that ``block`` reads from, such as padding; raises ScheduleError where one is a reduction."""
    while producers := schedule.get_producers(block):
        for producer in producers:
            schedule.compute_inline(producer)


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
