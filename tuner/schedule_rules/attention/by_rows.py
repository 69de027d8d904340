"""The definition of attention scheduled for a CPU: query by query, so that one row of scores exists at a time."""

from __future__ import annotations

import contextlib

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import ScheduleError

_REDUCES = (True, False, True, False, True, True, False)
"""Which blocks of the definition are reductions: scores, most, total and values."""

_UNROLLED = 4
"""Scores that are summed side by side."""


def schedule_by_rows(schedule: Schedule) -> bool:
    """Schedule the unscheduled kernel, parallel over queries; return whether it has the form of the definition."""
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    if tuple(schedule.get(block).init is not None for block in blocks) != _REDUCES:
        return False
    scores, *_, values, result = blocks
    if len(schedule.get_loops(result)) != 4 or len(schedule.get_loops(scores)) != 5:
        return False
    batch, query, head, _ = schedule.get_loops(result)
    schedule.reorder(batch, head, query)
    row = schedule.fuse(batch, head, query)
    schedule.parallel(row)
    for block in reversed(blocks[:-1]):
        schedule.compute_at(block, row)
    channel, place = schedule.get_loops(values)[-2:]
    schedule.reorder(place, channel)
    schedule.vectorize(channel)
    schedule.decompose_reduction(values, place)
    key, channel = schedule.get_loops(scores)[-2:]
    with contextlib.suppress(ScheduleError):
        outer, inner = schedule.split(key, [None, _UNROLLED])
        schedule.reorder(outer, channel, inner)
        schedule.unroll(inner)
        schedule.decompose_reduction(scores, channel)
    return True
