"""What a kernel must compute: inputs from a seed, and outputs by the untuned TensorIR in double precision on the CPU.

A case is computed once and kept as a file that the measuring worker reads (see `wgtune.devices.job.MeasureJob`).
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import SBlock

from .. import paths
from ..errors import WgtuneError
from .double import run_in_double
from .program import Kernel

_FORMAT = 1
"""Part of each file's name: a change to the inputs or the reference takes another number."""

_UNIT_ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24}

_ELEMENTWISE = 64.0
"""Roundings allowed to a result without reduction. WGSL grants exp 3 + 2·|x| ULP, division 2.5, inverseSqrt 2 (W3C
WGSL, "Accuracy of concrete floating point expressions"), TVM prints constants with seven digits, and a fused kernel
chains several of these."""

_SUMMATION = 16.0
"""Standard deviations of the summation error that are allowed; ten million normal values stay within six."""

_TRIGONOMETRIC = 2.0**-10
"""WGSL grants sin and cos an absolute error of 2^-11 (same section)."""

_MASKED = 1e6
"""Larger outputs are masks (−1e9, the least float), not results: they say nothing about the size of an error."""

_PLAIN_INTEGERS = 128
"""Integers that index nothing are drawn from below this."""


class CaseError(WgtuneError):
    """A kernel has no finite reference."""


@dataclass(frozen=True)
class Case:
    """A safetensors file of inputs and expected outputs (``arg<i>``, ``expected<i>``), and how near is near enough.

    An output passes where ``|got − expected| ≤ atol + rtol · |expected|``. ``reduction_length`` is the most terms that
    one result sums.
    """

    path: Path
    rtol: float
    atol: float
    reduction_length: int


def make_case(kernel: Kernel, seed: int = 0, folder: Path | None = None) -> Case:
    """The case of ``kernel`` for ``seed``: from ``folder`` (by default a cache) if it is whole there, or computed.

    Float inputs are standard normal; integer inputs that index stay inside what they index. Where that gives no finite
    output (a root or a logarithm of negatives), the absolute values plus a half are taken instead.

    The tolerance follows the type and the reduction. Summing K terms of random sign, in whatever order, leaves an error
    near u·√K relative to the result's root mean square, u being the unit roundoff (Higham, Accuracy and Stability of
    Numerical Algorithms, chapter 4); a single term left out is a 1/√K part of it, which is thousands of times more.
    So ``atol`` is ``16·u·√K`` of the outputs' root mean square, and ``rtol`` the same with at least 64 roundings for
    what a kernel does without reducing.

    Raises:
        CaseError: the reference is not finite with either kind of input.
    """
    folder = folder or paths.cache_dir() / "cases"
    path = folder / f"{kernel.id}-{seed}-v{_FORMAT}.safetensors"
    expected = _load_expected(kernel, path)
    if expected is None:
        arrays = _compute(kernel, seed)
        _save(arrays, path)
        expected = [arrays[f"expected{i}"] for i in kernel.outputs]
    length = _reduction_length(kernel.func)
    rtol, atol = _tolerance(kernel, length, expected)
    return Case(path, rtol, atol, length)


def _compute(kernel: Kernel, seed: int) -> dict[str, np.ndarray]:
    bounds = _index_bounds(kernel.func)
    for positive in (False, True):
        inputs = {i: _input(kernel, i, seed, bounds.get(i), positive) for i in range(len(kernel.params))}
        arguments = [
            np.zeros(p.shape, _wide(p.dtype)) if i in kernel.outputs else inputs[i].astype(_wide(p.dtype))
            for i, p in enumerate(kernel.params)
        ]
        run_in_double(kernel.func, arguments)
        with np.errstate(over="ignore"):
            outputs = {f"expected{i}": arguments[i].astype(kernel.params[i].dtype) for i in kernel.outputs}
        if all(np.isfinite(o).all() for o in outputs.values()):
            return {**{f"arg{i}": a for i, a in inputs.items() if i not in kernel.outputs}, **outputs}
    raise CaseError(
        f"kernel {kernel.name} gives infinite or undefined numbers for normal and for positive inputs",
        "it cannot be verified, so it is not tuned; leave it out with --kernels",
    )


def _input(kernel: Kernel, index: int, seed: int, bound: int | None, positive: bool) -> np.ndarray:
    param = kernel.params[index]
    random = np.random.default_rng([seed, index])
    if not param.dtype.startswith("float"):
        return random.integers(0, bound or _PLAIN_INTEGERS, param.shape).astype(param.dtype)
    values = random.standard_normal(param.shape, np.float32)
    return (np.abs(values) + np.float32(0.5) if positive else values).astype(param.dtype)


def _wide(dtype: str) -> str:
    return "float64" if dtype.startswith("float") else dtype


def _index_bounds(func: tirx.PrimFunc) -> dict[int, int]:
    """For each integer parameter that is used as an index, the length of the shortest axis that it indexes."""
    bounds: dict[int, int] = {}
    positions = {param: i for i, param in enumerate(func.params)}

    def visit(load: Any) -> None:
        for axis, index in enumerate(load.indices):

            def inside(inner: Any, extent: int = int(load.source.ty.shape[axis])) -> None:
                i = positions.get(inner.source)
                if i is not None and "int" in str(inner.source.ty.dtype):
                    bounds[i] = min(bounds.get(i, extent), extent)

            tvm_ffi.structural_walk(index, [(tvm.ir.TensorLoad, inside)])

    tvm_ffi.structural_walk(func.body, [(tvm.ir.TensorLoad, visit)])
    return bounds


def _reduction_length(func: tirx.PrimFunc) -> int:
    """The most terms that one element of any block of ``func`` reduces; 1 where nothing is reduced."""
    longest = 1

    def visit(block: Any) -> None:
        nonlocal longest
        extents = [int(axis.dom.extent) for axis in block.iter_vars if axis.iter_type == tirx.IterVar.CommReduce]
        longest = max(longest, math.prod(extents))

    tvm_ffi.structural_walk(func.body, [(SBlock, visit)])
    return longest


def _tolerance(kernel: Kernel, length: int, expected: list[np.ndarray]) -> tuple[float, float]:
    """(rtol, atol) by the formula of `make_case`; zeros for a kernel that only moves integers."""
    kinds = {p.dtype for p in kernel.params if p.dtype in _UNIT_ROUNDOFF}
    if not kinds:
        return 0.0, 0.0
    roundoff = max(_UNIT_ROUNDOFF[kind] for kind in kinds)
    summation = _SUMMATION * roundoff * math.sqrt(length)
    atol = summation * max(_typical_size(e) for e in expected)
    if _uses_trigonometry(kernel.func):
        atol += _TRIGONOMETRIC
    return max(_ELEMENTWISE * roundoff, summation), atol


def _typical_size(values: np.ndarray) -> float:
    """Root mean square of what is not a mask."""
    wide = np.abs(values.astype(np.float64, copy=False))
    kept = wide[wide < _MASKED]
    return float(np.sqrt(np.mean(np.square(kept)))) if kept.size else 0.0


def _uses_trigonometry(func: tirx.PrimFunc) -> bool:
    found = False

    def visit(call: Any) -> None:
        nonlocal found
        found = found or getattr(call.op, "name", "") in ("tirx.sin", "tirx.cos")

    tvm_ffi.structural_walk(func.body, [(tvm.ir.Call, visit)])
    return found


def _load_expected(kernel: Kernel, path: Path) -> list[np.ndarray] | None:
    """The expected outputs of a whole case file; None where it is missing, damaged or of another kernel."""
    from safetensors import SafetensorError, safe_open

    want = {f"{'expected' if i in kernel.outputs else 'arg'}{i}": p for i, p in enumerate(kernel.params)}
    try:
        with safe_open(path, "numpy") as file:
            if set(file.keys()) != set(want):
                return None
            if any(tuple(file.get_slice(name).get_shape()) != param.shape for name, param in want.items()):
                return None
            expected = [file.get_tensor(f"expected{i}") for i in kernel.outputs]
    except (OSError, SafetensorError):
        return None
    return expected if all(np.isfinite(e).all() for e in expected) else None


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write the file under another name first, so that a killed process leaves no half of it."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, name)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
