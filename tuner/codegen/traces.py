"""Schedules as traces: the module that they start from, their JSON text, and replay.

A trace names the blocks and buffers that it works on. A kernel's identity has no names, so every schedule starts from
`schedulable_module`, where names are positions: a trace recorded for a kernel replays on every kernel of its id.
"""

from __future__ import annotations

import json
from functools import lru_cache

import tvm
from tvm.s_tir import Schedule

from ...database.tvm.kernel_identity import with_canonical_names
from ...database.tvm.traces import ENTRY, apply_trace, is_trace, trace_values
from ...support.errors import WgtuneError, first_line
from ..ir import Kernel

_HINT = "it was recorded for another kernel or by another version of TVM; tune this kernel again"


class TraceError(WgtuneError):
    """A stored trace that is damaged, or belongs to another kernel or another TVM version."""


def schedulable_module(kernel: Kernel) -> tvm.IRModule:
    """Return a new module whose only function ``main`` is the unscheduled kernel with names that follow from positions.

    Search and baselines start from it, so that traces and WGSL depend only on the kernel's identity.
    """
    return tvm.IRModule({ENTRY: _named_by_position(kernel)})


def trace_to_json(schedule: Schedule) -> str:
    """Return the schedule's trace as JSON text, postprocessing included."""
    return json.dumps(trace_values(schedule.trace), separators=(",", ":"))


def replay(kernel: Kernel, trace_json: str) -> Schedule:
    """Return the schedule of ``kernel`` whose trace `trace_to_json` wrote.

    Only TVM's scheduling instructions are executed.

    Raises:
        TraceError: the text is no trace, or does not fit this kernel.
    """
    try:
        trace = json.loads(trace_json)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"the trace stored for {kernel.name} is not JSON: {error}", _HINT) from error
    if not is_trace(trace):
        raise TraceError(f"the trace stored for {kernel.name} is not made of instructions and decisions", _HINT)
    try:
        return apply_trace(schedulable_module(kernel), trace)
    except Exception as error:
        raise TraceError(
            f"the trace stored for {kernel.name} does not fit this kernel: {first_line(error)}", _HINT
        ) from error


@lru_cache(maxsize=4096)
def _named_by_position(kernel: Kernel) -> tvm.tirx.PrimFunc:
    """Return the kernel's function in canonical names. A capture of an older wgtune may hold other names."""
    return with_canonical_names(kernel.func)
