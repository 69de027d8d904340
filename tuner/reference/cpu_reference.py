"""Untuned TensorIR run on the CPU, also in double precision, fast enough for the largest convolutions of a VAE."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.target import Target

from ...database.tvm.graph_json import load_json
from ..schedule_rules import schedule_by_rows

_FLOAT = re.compile(r'("dtype":\s*)"float(?:16|32)"')
_VECTOR = 16
"""Most results of a reduction that are kept along the innermost axis: two AVX-512 registers of doubles."""
_ROWS = 4
"""Most rows of such results that share each load; with `_VECTOR` they fill the vector registers without spilling."""


def in_double(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return ``func`` with float32 and float16 replaced by float64; the replacement is made in TVM's JSON form."""
    return load_json(_FLOAT.sub(r'\1"float64"', tvm.ir.save_json(func)))


def run_on_cpu(func: tirx.PrimFunc, arguments: list[np.ndarray]) -> None:
    """Run ``func`` on all cores of this machine's CPU.

    Args:
        func: an unscheduled kernel.
        arguments: arrays with the shapes and types of the signature; outputs are filled in place.
    """
    func = func.with_attr("global_symbol", "main")
    try:
        module = _scheduled(func)
        library = tvm.tirx.build(module, target=_cpu())
    except Exception:  # the fast schedule does not fit every kernel
        library = tvm.tirx.build(tvm.IRModule({"main": func}), target=_cpu())
    tensors = [tvm.runtime.tensor(a) for a in arguments]
    library["main"](*tensors)
    for array, tensor in zip(arguments, tensors, strict=True):
        array[...] = tensor.numpy()


def _cpu() -> Target:
    return Target({"kind": "llvm", "mcpu": str(tvm.get_global_func("target.llvm_get_system_cpu")())})


def _scheduled(func: tirx.PrimFunc) -> tvm.IRModule:
    """Return ``func`` parallel over cores, reductions tiled for vector registers: convolutions run 20 times faster."""
    schedule = Schedule(tvm.IRModule({"main": func}))
    if schedule_by_rows(schedule):
        return schedule.mod
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        kinds = [axis.iter_type for axis in schedule.get(block).iter_vars]
        loops = list(zip(schedule.get_loops(block), kinds, strict=True))
        spatial = [loop for loop, kind in loops if kind == tirx.IterVar.DataPar]
        reduction = [loop for loop, kind in loops if kind == tirx.IterVar.CommReduce]
        if reduction and len(spatial) > 1:
            _tile(schedule, block, spatial, reduction)
        elif spatial:
            schedule.reorder(*spatial, *reduction)
            schedule.parallel(schedule.fuse(*spatial))
    return schedule.mod


def _tile(schedule: Schedule, block: SBlockRV, spatial: list[LoopRV], reduction: list[LoopRV]) -> None:
    """Keep a few rows of neighbouring results in registers during the reduction."""
    extents = [int(schedule.get(loop).extent) for loop in spatial]
    columns = max((i for i, extent in enumerate(extents) if extent > 1), default=len(spatial) - 1)
    rows = _independent_axis(schedule, block, columns, extents)
    outer, tile = list(spatial), []
    for axis, most in ((rows, _ROWS), (columns, _VECTOR)):
        if axis is not None:
            outer[axis], inner = schedule.split(spatial[axis], [None, _largest_divisor(extents[axis], most)])
            tile.append(inner)
    results = schedule.cache_write(block, 0, "global")
    schedule.reorder(*outer, *reduction, *tile)
    parallel = schedule.fuse(*outer)
    schedule.parallel(parallel)
    schedule.reverse_compute_at(results, parallel)
    for loop in tile[:-1]:
        schedule.unroll(loop)
    schedule.vectorize(tile[-1])
    schedule.decompose_reduction(block, reduction[0])


def _independent_axis(schedule: Schedule, block: SBlockRV, columns: int, extents: list[int]) -> int | None:
    """Return the longest spatial axis that shares no input with axis ``columns``, so that loads serve several rows."""
    node = schedule.get(block)
    variables = [axis.var for axis in node.iter_vars if axis.iter_type == tirx.IterVar.DataPar]
    used: list[set[Any]] = []
    for region in node.reads:
        found: set[Any] = set()
        for dimension in region.region:
            tvm_ffi.structural_walk(dimension.min, [(tirx.Var, found.add)])
        used.append(found)
    free = [
        i
        for i, variable in enumerate(variables)
        if i != columns and extents[i] > 1 and not any({variable, variables[columns]} <= found for found in used)
    ]
    return max(free, key=lambda i: extents[i], default=None)


def _largest_divisor(extent: int, most: int) -> int:
    return max(d for d in range(1, min(extent, most) + 1) if extent % d == 0)
