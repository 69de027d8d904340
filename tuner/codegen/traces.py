"""Schedules as traces: the module that they start from, their JSON text, and replay.

A trace names the blocks and buffers that it works on. A kernel's identity has no names, so every schedule starts from
`schedulable_module`, where names are positions: a trace recorded for a kernel replays on every kernel of its id.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import tvm
from tvm.s_tir import Schedule

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
    return tvm.IRModule({ENTRY: _without_names(kernel)})


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
def _without_names(kernel: Kernel) -> tvm.tirx.PrimFunc:
    """The kernel's function with variables, buffers and blocks named by their order of appearance in TVM's JSON graph.

    TVM's graph lists a node after what it refers to, in the order of a depth-first walk, which names do not change.
    """
    graph = json.loads(tvm.ir.save_json(kernel.func.with_attr("global_symbol", ENTRY)))
    nodes = graph["nodes"]

    def rename(data: dict[str, Any], field: str, name: str) -> None:
        nodes.append({"type": "ffi.String", "data": name})
        data[field] = len(nodes) - 1

    counts: dict[str, int] = {}
    for node in list(nodes):
        data = node.get("data")
        if node["type"] == "ir.Var":
            prefix = "b" if nodes[data["ty"]]["type"] == "tirx.BufferType" else "v"
            rename(data, "name", f"{prefix}{counts.setdefault(prefix, 0)}")
        elif node["type"] == "s_tir.SBlock" and nodes[data["name_hint"]]["data"] != "root":
            prefix = "block"
            rename(data, "name_hint", f"{prefix}{counts.setdefault(prefix, 0)}")
        else:
            continue
        counts[prefix] += 1
    return tvm.ir.load_json(json.dumps(graph))
