"""What a kernel must compute: inputs from a seed, and outputs by the untuned TensorIR in double precision on the CPU.

A case is computed once and kept as a file that the measuring worker reads (see `job.MeasureJob`), until
the cache is full and others were used since.
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

from ...support import paths
from ...support.errors import WgtuneError
from ..ir import Kernel
from .cpu_reference import in_double, run_on_cpu
from .lru_files import evict, used

_FORMAT = 1
"""Part of each file's name: a change to the inputs or the reference takes another number."""

_UNIT_ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24}

_ELEMENTWISE = 64.0
"""Roundings allowed to a result without reduction. WGSL grants exp 3 + 2·|x| ULP, division 2.5, inverseSqrt 2 (W3C
WGSL, "Accuracy of concrete floating point expressions"), TVM prints constants with seven digits, and a fused kernel
chains several of these."""

_SUMMATION = 16.0
"""Standard deviations of the summation error that are allowed; ten million normal values stay within six."""

_ROUNDING = 8.0
"""How much farther from exact a GPU may be than the CPU in the kernel's own precision: other orders and functions."""

_TRIGONOMETRIC = 2.0**-10
"""WGSL grants sin and cos an absolute error of 2^-11 (same section)."""

_ERROR_FUNCTION = 2.0**-21
"""WGSL has no erf: TVM's polynomial is off by up to 1.5e-7 (Abramowitz and Stegun, formula 7.1.26), a third of this."""

_MASKED = 1e6
"""Larger outputs are masks (−1e9, the least float), not results: they say nothing about the size of an error."""

_PLAIN_INTEGERS = 128
"""Integers that index nothing are drawn from below this."""


_ROUNDING_KEY = "rounding"


class NonFiniteReferenceError(WgtuneError):
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
    what a kernel does without reducing. Where outputs are smaller than what was summed for them (a clamp, a
    difference), the CPU in the kernel's own precision shows how large errors are: ``atol`` is at least 8 times that.

    Raises:
        NonFiniteReferenceError: the reference is not finite with either kind of input.
        WgtuneError: ``folder`` takes no file, as when the disk is full; `wgtune.support.paths.cache_limit` is wrong.
    """
    folder = folder or paths.cache_dir() / "cases"
    path = folder / f"{kernel.id}-{seed}-v{_FORMAT}.safetensors"
    length = _reduction_length(kernel.func)
    rtol = _relative_tolerance(kernel, length)
    loaded = _load(kernel, path)
    if loaded is None:
        arrays = _compute(kernel, seed)
        expected = [arrays[f"expected{i}"] for i in kernel.outputs]
        rounding = _rounding_error(kernel, arrays, rtol)
        try:
            _save(arrays, rounding, path)
            evict(folder, paths.cache_limit())
        except OSError as failure:
            raise WgtuneError(
                f"the reference of {kernel.name} cannot be kept in {folder}: {failure}",
                "make room there, or set WGTUNE_CACHE to a folder with more; the same command then goes on",
            ) from failure
    else:
        used(path)
        expected, rounding = loaded
    return Case(path, rtol, _absolute_tolerance(kernel, length, expected, rounding), length)


def _compute(kernel: Kernel, seed: int) -> dict[str, np.ndarray]:
    bounds = _index_bounds(kernel.func)
    for positive in (False, True):
        inputs = {i: _input(kernel, i, seed, bounds.get(i), positive) for i in range(len(kernel.params))}
        arguments = [
            np.zeros(p.shape, _wide(p.dtype)) if i in kernel.outputs else inputs[i].astype(_wide(p.dtype))
            for i, p in enumerate(kernel.params)
        ]
        run_on_cpu(in_double(kernel.func), arguments)
        with np.errstate(over="ignore"):
            outputs = {f"expected{i}": arguments[i].astype(kernel.params[i].dtype) for i in kernel.outputs}
        if all(np.isfinite(o).all() for o in outputs.values()):
            return {**{f"arg{i}": a for i, a in inputs.items() if i not in kernel.outputs}, **outputs}
    raise NonFiniteReferenceError(
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
    """For each integer parameter that is used as an index, how far it may reach.

    That is the shortest axis that it indexes as it is. An index that the kernel keeps inside itself (capture clamps the
    ids of embedding tables) is safe anywhere; it should reach everything there is, so all the axes count together.
    """
    shortest: dict[int, int] = {}
    clamped: dict[int, dict[Any, int]] = {}
    positions = {param: i for i, param in enumerate(func.params)}

    def visit(load: Any) -> None:
        for axis, index in enumerate(load.indices):
            extent = int(load.source.ty.shape[axis])
            limits: list[Any] = []
            tvm_ffi.structural_walk(index, [((tirx.Min, tirx.Max), limits.append)])

            def inside(inner: Any, extent: int = extent, safe: bool = bool(limits)) -> None:
                i = positions.get(inner.source)
                if i is None or "int" not in str(inner.source.ty.dtype):
                    return
                if safe:
                    clamped.setdefault(i, {})[load.source] = extent
                else:
                    shortest[i] = min(shortest.get(i, extent), extent)

            tvm_ffi.structural_walk(index, [(tvm.ir.TensorLoad, inside)])

    tvm_ffi.structural_walk(func.body, [(tvm.ir.TensorLoad, visit)])
    return {**{i: sum(extents.values()) for i, extents in clamped.items()}, **shortest}


def _reduction_length(func: tirx.PrimFunc) -> int:
    """The most terms that one element of any block of ``func`` reduces; 1 where nothing is reduced."""
    longest = 1

    def visit(block: Any) -> None:
        nonlocal longest
        extents = [int(axis.dom.extent) for axis in block.iter_vars if axis.iter_type == tirx.IterVar.CommReduce]
        longest = max(longest, math.prod(extents))

    tvm_ffi.structural_walk(func.body, [(SBlock, visit)])
    return longest


def _roundoff(kernel: Kernel) -> float:
    """Of the coarsest float type among the parameters; 0 for a kernel that only moves integers."""
    return max((_UNIT_ROUNDOFF[p.dtype] for p in kernel.params if p.dtype in _UNIT_ROUNDOFF), default=0.0)


def _relative_tolerance(kernel: Kernel, length: int) -> float:
    return _roundoff(kernel) * max(_ELEMENTWISE, _SUMMATION * math.sqrt(length))


def _absolute_tolerance(kernel: Kernel, length: int, expected: list[np.ndarray], rounding: float) -> float:
    kept = [wide[wide < _MASKED] for wide in (np.abs(e.astype(np.float64)) for e in expected)]
    typical = max((float(np.sqrt(np.mean(np.square(k)))) for k in kept if k.size), default=0.0)
    largest = max((float(k.max()) for k in kept if k.size), default=0.0)
    atol = max(_SUMMATION * _roundoff(kernel) * math.sqrt(length) * typical, _ROUNDING * rounding)
    called = _called(kernel.func)
    if called & {"tirx.sin", "tirx.cos"}:
        atol += _TRIGONOMETRIC
    if "tirx.erf" in called:
        atol += _ERROR_FUNCTION * largest
    return atol


def _rounding_error(kernel: Kernel, arrays: dict[str, np.ndarray], rtol: float) -> float:
    """The most by which the CPU in the kernel's own precision misses the exact outputs beyond ``rtol`` of them."""
    arguments = [
        np.zeros(p.shape, p.dtype) if i in kernel.outputs else arrays[f"arg{i}"] for i, p in enumerate(kernel.params)
    ]
    run_on_cpu(kernel.func, arguments)
    worst = 0.0
    for i in kernel.outputs:
        exact = arrays[f"expected{i}"].astype(np.float64)
        worst = max(worst, float(np.max(np.abs(arguments[i] - exact) - rtol * np.abs(exact), initial=0.0)))
    return worst


def _called(func: tirx.PrimFunc) -> set[str]:
    """Names of the operators that ``func`` calls."""
    names: set[str] = set()
    tvm_ffi.structural_walk(func.body, [(tvm.ir.Call, lambda call: names.add(getattr(call.op, "name", "")))])
    return names


def _load(kernel: Kernel, path: Path) -> tuple[list[np.ndarray], float] | None:
    """Expected outputs and rounding error of a whole case file; None where it is missing, damaged or another's."""
    from safetensors import SafetensorError, safe_open

    want = {f"{'expected' if i in kernel.outputs else 'arg'}{i}": p for i, p in enumerate(kernel.params)}
    try:
        with safe_open(path, "numpy") as file:
            if set(file.keys()) != set(want):
                return None
            if any(tuple(file.get_slice(name).get_shape()) != param.shape for name, param in want.items()):
                return None
            expected = [file.get_tensor(f"expected{i}") for i in kernel.outputs]
            rounding = float(file.metadata()[_ROUNDING_KEY])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return (expected, rounding) if all(np.isfinite(e).all() for e in expected) and math.isfinite(rounding) else None


def _save(arrays: dict[str, np.ndarray], rounding: float, path: Path) -> None:
    """Write the file under another name first, so that a killed process leaves no half of it.

    Raises OSError where the disk does not take it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        tensors = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        save_file(tensors, name, {_ROUNDING_KEY: repr(rounding)})
        os.replace(name, path)
    except SafetensorError as failure:  # safetensors' word for whatever the disk says
        Path(name).unlink(missing_ok=True)
        raise OSError(str(failure)) from failure
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
