"""The schedule rule of attention: which kernels are attention, what may be chosen, and what is chosen untuned.

A schedule is an annotation of the unfused kernel that names the rule and its parameters. What is emitted is the kernel
in one pass (`online`), which `expanded` makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import tvm_ffi
from tvm import IRModule, tirx
from tvm.s_tir import SBlock, Schedule

from ..rule import ANNOTATION, Limits, Parameter, Quantities, RuleSpace, Values
from ..tiles import divisors
from .definition import COMPUTED, Attention, attention_func
from .online import online_func
from .tiling import Sizes, Tiling

RULE = "attention"

_ENTRY = "main"

_REGISTERS = 110
"""Most registers of a thread by default: with addresses some 130, and GPUs have room for several waves."""

_MOST_REGISTERS = 256

_MOST_ON_CPU = 1100
"""The same for a CPU's adapter: what does not fit registers is near, and a load serves all queries of a thread."""

_LOAD_ON_CPU = 40
"""Multiply-adds in whose time a CPU's adapter loads a vector: llvmpipe takes it lane by lane."""

_MOST_STATEMENTS = 320
"""Most vector multiply-adds that are written out: more make more than 50 KB of WGSL, and drivers compile for long."""

_DEFAULT_STATEMENTS = 160

_AMPLE = 64
"""Registers of a thread, and bytes of workgroup memory for each, with which a GPU holds as many waves as it needs."""


def attention(module: IRModule, limits: Limits) -> RuleSpace | None:
    """Return the space of scaled dot-product attention, None for other kernels."""
    kernel = find_attention(module)
    if kernel is None:
        return None
    chosen = _default(kernel, limits)
    if chosen is None:
        return None
    parameters = (
        Parameter("rows", (1, 2, 3, 4, 5, 6, 8), chosen.rows),
        Parameter("parts", _parts(kernel), chosen.parts),
        Parameter("groups", (1, 2, 4, 8, 16, 32, 64, 128, 256), chosen.groups),
        Parameter("keys", _key_counts(kernel), chosen.keys),
        Parameter("staged", (0, 1, 2, 4, 8), chosen.staged),
    )
    sizes = {"queries": kernel.queries, "keys": kernel.keys, "channels": kernel.channels, "heads": kernel.heads}
    simpler = _default(kernel, replace(limits, shares=False))
    fits, describe = partial(_fits, kernel, limits), partial(_describe, kernel, limits.of_unknown_gpu)
    return RuleSpace(
        RULE,
        module,
        parameters,
        fits,
        lambda schedule, values: None,
        sizes,
        describe,
        simpler=(asdict(simpler),) if simpler else (),
    )


def expanded(module: IRModule) -> IRModule:
    """Return the kernel ``main`` in one pass where its schedule is one of this rule, else ``module`` itself.

    Raises:
        ValueError: the annotation names no such schedule of this kernel.
    """
    label = _label(module[_ENTRY])
    if label is None or label.split(" ", 1)[0] != RULE:
        return module
    kernel = find_attention(module)
    try:
        values = {name: int(value) for name, value in (pair.split("=", 1) for pair in label.split()[1:])}
        tiling = Tiling(**values)
    except (ValueError, TypeError):
        raise ValueError(f"{label!r} is no schedule of attention") from None
    if kernel is None:
        raise ValueError("the schedule is of attention, the kernel is not")
    if Sizes(kernel, tiling).statements > 4 * _MOST_STATEMENTS:
        raise ValueError(f"{tiling} makes too long a program")
    return IRModule({_ENTRY: online_func(kernel, tiling)})


def find_attention(module: IRModule) -> Attention | None:
    """Return what the unscheduled kernel computes if it is `definition.attention_func` of something, else None."""
    func = module[_ENTRY]
    shapes = [tuple(int(extent) for extent in param.ty.shape) for param in func.params if _is_static(param)]
    if len(shapes) != len(func.params) or len(shapes) not in (4, 5):
        return None
    masks = {str(param.ty.dtype) for param in func.params[3:-1]}
    dtypes = {str(param.ty.dtype) for param in (*func.params[:3], func.params[-1])}
    if len(dtypes) != 1 or masks - {COMPUTED}:
        return None
    query, key, *mask = shapes[:-1]
    if any(len(shape) != 4 for shape in shapes) or query[2:] != key[2:] or shapes[2] != key or shapes[-1] != query:
        return None
    if mask[1:] and any(
        extent not in (1, full) for extent, full in zip(mask[1], (query[0], query[2], query[1], key[1]), strict=True)
    ):
        return None
    scales, causal = _scales(func)
    (dtype,), added = dtypes, mask[1] if mask[1:] else None
    for scale in (*scales, 1.0):  # TVM leaves out a factor of 1
        found = Attention(query[0], query[1], key[1], query[2], query[3], scale, causal, added, dtype)
        if tvm_ffi.structural_equal(_plain(attention_func(found)), _plain(func), True):
            return found
    return None


def _is_static(param: Any) -> bool:
    return hasattr(param.ty, "shape") and all(isinstance(extent, tirx.IntImm) for extent in param.ty.shape)


def _scales(func: tirx.PrimFunc) -> tuple[list[float], bool]:
    """Return the factors of products with a constant, in order, and whether anything is selected."""
    factors: list[float] = []
    chosen: list[Any] = []

    def product(node: Any) -> None:
        if isinstance(node.b, tirx.FloatImm):
            factors.append(float(node.b.value))

    tvm_ffi.structural_walk(func.body, [(tirx.Mul, product), (tirx.Select, chosen.append)])
    return factors, bool(chosen)


def _plain(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return the function without attributes and without this rule's annotation."""
    for name in list(func.attrs.keys()) if func.attrs is not None else []:
        func = func.without_attr(name)
    schedule = Schedule(IRModule({_ENTRY: func}), enable_check=False)
    root = schedule.get_sblock("root")
    if ANNOTATION in schedule.get(root).annotations:
        schedule.unannotate(root, ANNOTATION)
    return schedule.mod[_ENTRY]


def _label(func: tirx.PrimFunc) -> str | None:
    """Return the annotation of the root block that names a rule."""
    if not isinstance(func, tirx.PrimFunc):
        return None
    found: list[str] = []

    def visit(block: Any) -> None:
        if ANNOTATION in block.annotations:
            found.append(str(block.annotations[ANNOTATION]))

    tvm_ffi.structural_walk(func.body, [(SBlock, visit)])
    return found[0] if found else None


# What fits, and what is chosen.


def _parts(kernel: Attention) -> tuple[int, ...]:
    """Return the numbers of threads that may share a query: each has whole vectors where the channels are vectors."""
    width = 4 if kernel.channels % 4 == 0 else 1
    return divisors(kernel.channels // width, 64)


def _key_counts(kernel: Attention) -> tuple[int, ...]:
    """Return the numbers of keys of a step: some for every length, and those that divide a short one."""
    counts = {1, 2, 4, 8, 16}
    if kernel.keys % 16:
        counts |= {n for n in divisors(kernel.keys, 16) if n > 2}
    return tuple(sorted(n for n in counts if n <= kernel.keys))


def _fits(kernel: Attention, limits: Limits, values: Values) -> bool:
    return _sizes(kernel, limits, Tiling(**values)) is not None


def _sizes(kernel: Attention, limits: Limits, tiling: Tiling) -> Sizes | None:
    """Return the sizes of a tiling that keeps the limits; None for another."""
    try:
        sizes = Sizes(kernel, tiling)
    except ValueError:
        return None
    fits = (
        tiling.threads <= limits.threads
        and sizes.staged_bytes + sizes.exchanged_bytes <= limits.shared_bytes
        and sizes.registers <= (_MOST_REGISTERS if limits.shares else _MOST_ON_CPU)
        and sizes.statements <= _MOST_STATEMENTS
        and tiling.queries < 2 * kernel.queries
        and tiling.staged <= sizes.steps
    )
    return sizes if fits else None


def _default(kernel: Attention, limits: Limits) -> Tiling | None:
    """Return the tiling of the least estimated time on an unknown GPU; of equal ones the first."""
    best: tuple[float, Tiling] | None = None
    for tiling in _candidates(kernel, limits):
        sizes = _sizes(kernel, limits.modest, tiling)
        if sizes is None:
            continue
        time = _estimated_time(sizes, limits)
        if best is None or time < best[0] * 0.999:
            best = (time, tiling)
    return best[1] if best else None


def _candidates(kernel: Attention, limits: Limits) -> Iterator[Tiling]:
    # Threads of a CPU gain nothing by sharing, but one alone may have too few registers.
    alone = limits.shares or _sizes(kernel, limits, Tiling(1, 1, 1, 1, 0)) is None
    parts = _parts(kernel) if alone else (1,)
    staged = (0, 1, 2, 4) if limits.shares else (0,)
    for rows in (1, 2, 4) if limits.shares else (1, 2, 4, 8):
        for part in parts:
            for groups in (1, 2, 4, 8, 16, 32, 64, 128, 256):
                if part * groups <= limits.threads:
                    for keys in _key_counts(kernel):
                        for steps in staged:
                            yield Tiling(rows, part, groups, keys, steps)


def _estimated_time(sizes: Sizes, limits: Limits) -> float:
    """Return the time per multiply-add, in no unit: instructions of a step, idle lanes, and registers."""
    kernel, tiling = sizes.kernel, sizes.tiling
    wanted = 2 * sizes.scores * sizes.channels
    loads = 2 * tiling.keys * sizes.vectors
    work = wanted + _other_instructions(sizes)
    if limits.shares:
        port = _STAGED_LOAD if tiling.staged else _UNIFORM_LOAD if tiling.parts == 1 else _MEMORY_LOAD
        work = max(work, port * loads)
    else:
        work += _LOAD_ON_CPU * loads
    # Beyond the last key and the last query nothing useful is done.
    useful = kernel.keys / (sizes.steps * tiling.keys)
    tiles = -(-kernel.queries // tiling.queries)
    useful *= kernel.queries / (tiles * tiling.queries)
    waves = -(-tiling.threads // limits.wave) * limits.wave
    lanes = tiling.threads / waves
    groups = tiles * kernel.batch * kernel.heads
    busy = min(1.0, groups * tiling.threads / limits.lanes)
    registers = sizes.registers if limits.shares else 0
    spills = 1 + max(0, registers - _REGISTERS, sizes.statements - _DEFAULT_STATEMENTS) / 16
    held = (sizes.staged_bytes + sizes.exchanged_bytes) / tiling.threads
    crowded = 1 + (max(0, registers - _AMPLE) + max(0, held - _AMPLE)) / 512
    return work / wanted * spills * crowded / (useful * lanes * busy)


def _other_instructions(sizes: Sizes) -> float:
    """Return a thread's instructions in a step beside multiply-adds."""
    tiling = sizes.tiling
    loads = 2 * tiling.keys * sizes.vectors
    # With a load comes a wait, and an address where it is no constant distance from the thread's own.
    constant = tiling.staged == 1 or (tiling.staged and tiling.parts > 1)
    reading = loads * (2.2 if constant or (tiling.parts == 1 and not tiling.staged) else 3.0)
    # A maximum, a difference, an exponential at a quarter of the rate, and a sum; and sums shrink.
    weights = sizes.scores * 7 + tiling.rows * (sizes.channels + 8)
    exchange = 0.0
    if tiling.parts > 1:
        read = max(sizes.scores, tiling.parts) if sizes.combined else sizes.scores * tiling.parts
        exchange = 2 * (sizes.scores + 2 * read) / sizes.exchange_vector + read + 2 * _BARRIER
    staging = 0.0
    if tiling.staged:
        staging = 2 * tiling.keys * sizes.kernel.channels / 4 / tiling.threads * _COPYING + 2 * _BARRIER / tiling.staged
    return reading + weights + exchange + staging + _LOOP


_STAGED_LOAD, _UNIFORM_LOAD, _MEMORY_LOAD = 8, 10, 20
"""Multiply-adds in whose time a GPU brings a vector to each thread: from workgroup memory, which brings 128 bytes a
cycle to the four units of a core; from memory to all threads alike, which AMD's GPUs do beside other work; and from
memory to each thread its own."""

_BARRIER, _COPYING, _LOOP = 10, 6, 6
"""Instructions for which a barrier counts, copying a vector, and a loop."""


def _describe(kernel: Attention, limits: Limits, values: Values) -> Quantities:
    tiling = Tiling(**values)
    sizes = Sizes(kernel, tiling)
    tiles = -(-kernel.queries // tiling.queries)
    loads = 1 / (sizes.vector * tiling.rows)
    return Quantities(
        threads=tiling.threads,
        groups=tiles * kernel.batch * kernel.heads,
        results=tiling.rows * sizes.channels,
        vector=sizes.vector,
        statements=sizes.statements,
        shared_bytes=sizes.staged_bytes + sizes.exchanged_bytes,
        loads=loads if tiling.staged else 0.0,
        staged=1 / (tiling.queries if tiling.staged else tiling.rows),
        cost=_estimated_time(sizes, limits),
    )
