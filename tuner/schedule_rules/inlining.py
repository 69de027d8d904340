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
    consumers = schedule.get_consumers(block)
    if not consumers:
        return None
    while True:
        if len(consumers) != 1:
            raise ValueError("the reduction has several consumers")
        following = schedule.get_consumers(consumers[0])
        if not following:
            break
        schedule.compute_inline(consumers[0])
        consumers = following
    # Broadcasts that the last block reads, such as the reshaped bias, are no part of the reduction.
    for producer in schedule.get_producers(consumers[0]):
        if schedule.get(producer).name_hint != schedule.get(block).name_hint:
            _inline_with_producers(schedule, producer)
    return consumers[0]


def _inline_with_producers(schedule: Schedule, block: SBlockRV) -> None:
    for producer in schedule.get_producers(block):
        _inline_with_producers(schedule, producer)
    schedule.compute_inline(block)
