"""Small scheduled kernels that show what a GPU of TVM's runtime can do at best."""

from __future__ import annotations

import tvm
from tvm import te
from tvm.s_tir import Schedule

_THREADS = 256
_GROUPS = 4096
_ROUNDS = 1024
_COPY_BYTES = 64 << 20


def arithmetic_program() -> tuple[tvm.IRModule, list[tuple[int, ...]], float]:
    """A module whose ``main`` multiplies and adds in registers; its parameters' shapes, and its operations."""
    count = _GROUPS * _THREADS
    x = te.placeholder((count,), "float32")
    k = te.reduce_axis((0, _ROUNDS))
    y = te.compute((count,), lambda i: te.sum(x[i] * (x[i] + k.astype("float32")), k))
    return _on_threads(te.create_prim_func([x, y])), [(count,), (count,)], 3.0 * _ROUNDS * count


def copy_program() -> tuple[tvm.IRModule, list[tuple[int, ...]], float]:
    """A module whose ``main`` copies; its parameters' shapes, and the bytes that it reads and writes."""
    count = _COPY_BYTES // 4
    x = te.placeholder((count,), "float32")
    y = te.compute((count,), lambda i: x[i])
    return _on_threads(te.create_prim_func([x, y])), [(count,), (count,)], 2.0 * _COPY_BYTES


def _on_threads(func: tvm.tirx.PrimFunc) -> tvm.IRModule:
    schedule = Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    results, *reduction = schedule.get_loops(block)
    group, thread = schedule.split(results, [None, _THREADS])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    if reduction:
        schedule.decompose_reduction(block, reduction[0])
    return schedule.mod
