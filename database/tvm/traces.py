"""Traces of TVM schedules as JSON values: their form, and their translation to another module's names.

A trace finds its blocks by name, and a schedule names the blocks that it makes after those and after buffers. Two
modules of one workload differ in nothing but names, so the same instructions make the same blocks in the same order.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import tvm
import tvm_ffi
from tvm.s_tir import SBlock, Schedule
from tvm.s_tir.schedule import Trace

from .kernel_identity import FUNCTION_ATTRIBUTES_DROPPED

ENTRY = "main"
"""The one function of a module that is scheduled."""

_MOST_INSTRUCTIONS = 100_000
"""Limit for traces of unknown origin: real ones have hundreds, and TVM takes 10 µs for each."""


def is_trace(trace: Any) -> bool:
    """Return whether ``trace`` has the outer form of TVM's JSON: instructions, and decisions that each belong to one.

    TVM checks the instructions, but writes a decision wherever its index points, outside its memory too.
    """
    if not (isinstance(trace, list) and len(trace) == 2 and all(isinstance(part, list) for part in trace)):
        return False
    instructions, decisions = trace
    if len(instructions) > _MOST_INSTRUCTIONS:
        return False
    return all(isinstance(i, list) and len(i) == 4 for i in instructions) and all(
        isinstance(d, list) and len(d) == 2 and type(d[0]) is int and 0 <= d[0] < len(instructions) for d in decisions
    )


def trace_values(trace: Trace) -> list[Any]:
    """Return the trace as JSON values, postprocessing included."""
    values: list[Any] = plain(trace.as_json(remove_postproc=False))
    return values


def apply_trace(module: tvm.IRModule, trace: list[Any]) -> Schedule:
    """Return ``module`` scheduled as ``trace`` says, whose form `is_trace` has found good.

    Nothing in it is executed but TVM's own scheduling instructions. Raises whatever TVM raises where it does not fit.
    """
    schedule = Schedule(module)
    Trace.apply_json_to_schedule(trace, schedule)
    return schedule


def translated(trace: list[Any], source: tvm.IRModule, destination: tvm.IRModule) -> Schedule:
    """Return ``destination`` scheduled as ``trace`` schedules ``source``, of which it is a copy with other names.

    Raises:
        ValueError: the trace names a block that is not there, or the two modules are no copies.
        Exception: TVM's, where the trace does not apply to ``source``.
    """
    wanted = apply_trace(source, trace)
    instructions, decisions = trace
    told: list[Any] = [list(instruction) for instruction in instructions]
    names = _paired(source, destination)
    for index, (kind, _, attributes, _) in enumerate(instructions):
        if kind != "GetSBlock":
            continue
        if attributes[0] not in names:
            # A block that an instruction before this one made: find it where it stands by now.
            first = [decision for decision in decisions if decision[0] < index]
            here = apply_trace(source, [instructions[:index], first]).mod
            names |= _paired(here, apply_trace(destination, [told[:index], first]).mod)
        if attributes[0] not in names:
            raise ValueError(f"the trace names a block {attributes[0]!r} that is not there")
        told[index][2] = [names[attributes[0]], *attributes[1:]]
    schedule = apply_trace(destination, [told, decisions])
    if not tvm_ffi.structural_equal(_unnamed(schedule.mod), _unnamed(wanted.mod)):
        raise ValueError("the trace does not schedule the two modules alike")
    return schedule


def plain(value: Any) -> Any:
    """TVM's JSON as JSON values: its integers and floats are IR constants."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tvm.tirx.IntImm):
        return int(value.value)
    if isinstance(value, tvm.tirx.FloatImm):
        return float(value.value)
    return value if isinstance(value, bool | int | float | type(None)) else str(value)


def _unnamed(module: tvm.IRModule) -> tvm.tirx.PrimFunc:
    """Return the function, without what may differ between two modules of one workload."""
    func = module[ENTRY]
    for attribute in FUNCTION_ATTRIBUTES_DROPPED:
        func = func.without_attr(attribute)
    return func


def _paired(source: tvm.IRModule, destination: tvm.IRModule) -> dict[str, str]:
    """Return the name in ``destination`` of each block of ``source`` whose name no other block has."""
    here, there = _block_names(source), _block_names(destination)
    counts = Counter(here)
    return {one: other for one, other in zip(here, there, strict=True) if counts[one] == 1}


def _block_names(module: tvm.IRModule) -> list[str]:
    found: list[str] = []
    tvm_ffi.structural_walk(module[ENTRY].body, [(SBlock, lambda block: found.append(str(block.name_hint)))])
    return found
