"""TVM modules and workloads: the id of a module, what is stored of it, and the stored module."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import tvm
import tvm_ffi
from tvm.s_tir.analysis import estimate_tir_flops

from ...support.errors import CaptureError
from ..schema.records import Param, TvmForm, WorkloadInfo, unnamed
from .graph_json import load_json
from .kernel_identity import canonical_text, kernel_id, with_canonical_names
from .traces import ENTRY


def workload_of(module: tvm.IRModule) -> str | None:
    """Return the workload id of ``module``.

    None where it is not one TensorIR function ``main``, or holds a node without canonical text.
    """
    functions = module.functions_items()
    if len(functions) != 1 or functions[0][0].name_hint != ENTRY:
        return None
    return _kernel_id(functions[0][1])


@lru_cache(maxsize=1024)
def named_by_position(module: tvm.IRModule) -> tvm.IRModule:
    """Return the module with canonical names, which stored traces use."""
    return tvm.IRModule({ENTRY: with_canonical_names(module[ENTRY])})


def describe_workload(module: tvm.IRModule) -> WorkloadInfo:
    """Return what the database stores of ``module``, for which `workload_of` returned an id.

    Its name is its function's, or `unnamed` where that is ``main``.
    """
    symbol = str((module[ENTRY].attrs or {}).get("global_symbol", ENTRY))
    func = named_by_position(module)[ENTRY]
    identity = kernel_id(func)
    params = tuple(
        Param(str(param.name), tuple(int(extent) for extent in param.ty.shape), str(param.ty.dtype))
        for param in func.params
    )
    return WorkloadInfo(
        id=identity,
        name=unnamed(identity) if symbol == ENTRY else f"{symbol}_{identity[:8]}",
        text=canonical_text(func),
        forms=(TvmForm(tvm.__version__, tvm.ir.save_json(func), module_hash(func)),),
        params=params,
        outputs=_written(func),
        flops=float(estimate_tir_flops(tvm.IRModule({ENTRY: func}))),
        nbytes=sum(math.prod(param.shape) * ((tvm.DataType(param.dtype).bits + 7) // 8) for param in params),
    )


def stored_module(info: WorkloadInfo) -> tvm.IRModule | None:
    """Return the module that the installed TVM version stored for the workload; None where it stored none."""
    form = next((form for form in info.forms if form.tvm_version == tvm.__version__), None)
    return None if form is None else tvm.IRModule({ENTRY: load_json(form.module)})


def module_hash(func: tvm.tirx.PrimFunc) -> str:
    """TVM's structural hash of a kernel, in hexadecimal, as MetaSchedule's own databases write it."""
    return str(tvm.get_global_func("s_tir.meta_schedule._SHash2Hex")(tvm.IRModule({ENTRY: func})))


@lru_cache(maxsize=1024)
def _kernel_id(func: Any) -> str | None:
    try:
        return kernel_id(func)
    except (CaptureError, AttributeError):  # a node without canonical form, or a function of Relax
        return None


def _written(func: tvm.tirx.PrimFunc) -> tuple[int, ...]:
    """Return the positions of the parameters that blocks write to."""
    written: set[Any] = set()
    tvm_ffi.structural_walk(
        func.body,
        [(tvm.s_tir.SBlock, lambda block: written.update(region.source.name for region in block.writes))],
    )
    return tuple(index for index, param in enumerate(func.params) if param.name in written)
