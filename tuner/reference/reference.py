"""The reference of a kernel: inputs from a seed, and outputs of the untuned TensorIR in double precision on the CPU.

A case is computed once and kept as a file, which the measuring worker reads (see `MeasureJob` in
`wgtune.devices.measure.job`). When the cache is full, the least recently used files are deleted.
"""

from __future__ import annotations

import math
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
from ...support.paths import evict, replaced_file, used
from ..ir import Kernel
from .cpu_reference import in_double, run_on_cpu

_FORMAT = 1
"""Part of each file's name; raised when inputs or outputs are computed differently."""

_UNIT_ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24}

_ELEMENTWISE = 64.0
"""Roundings allowed to a result without reduction. WGSL allows exp 3 + 2·|x| ULP, division 2.5, inverseSqrt 2 (W3C
WGSL, "Accuracy of concrete floating point expressions"), TVM prints constants with seven digits, and a fused kernel
chains several of these."""

_SUMMATION = 16.0
"""Standard deviations allowed to the summation error; ten million normal values stay within six."""

_ROUNDING = 8.0
"""Largest ratio of a GPU's error to the CPU's in the same precision: the order of terms and the functions differ."""

_STORED_HALF = 2.0**-10
"""Relative error of a result that is stored as a half float: a GPU may round to either neighbour, and here it is
rounded to the nearest."""

_LEAST_HALF = 2.0**-14
"""Least normal half float; a GPU may take smaller ones for zero (W3C WGSL, "Differences from IEEE-754")."""

_LARGE = (300.0, 800.0)
"""Mean and deviation of activations where they are largest: sums of halves overflow, and squares sooner."""

_LARGEST_SUMS = 8192.0
"""Deviation of sums of products: eight of it are half floats."""

_TRIGONOMETRIC = 2.0**-10
"""Absolute error allowed to sin and cos: WGSL allows 2^-11 (same section)."""

_ERROR_FUNCTION = 2.0**-21
"""Relative error allowed to erf, three times that of TVM's polynomial, 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""

_MASKED = 1e6
"""Larger outputs are masks (−1e9, the least float), which say nothing about the size of an error."""

_NORMAL = (0.0, 1.0)

_PLAIN_INTEGERS = 128
"""Upper bound (exclusive) of signed integer inputs that are no indices."""


_ROUNDING_KEY = "rounding"


class NonFiniteReferenceError(WgtuneError):
    """A kernel whose reference is not finite."""


@dataclass(frozen=True)
class Case:
    """A safetensors file of inputs and expected outputs (``arg<i>``, ``expected<i>``), and the tolerance.

    An output passes where ``|got − expected| ≤ atol + rtol · |expected|``. ``reduction_length`` is the largest number
    of terms that one result sums.
    """

    path: Path
    rtol: float
    atol: float
    reduction_length: int


def make_case(kernel: Kernel, seed: int = 0, folder: Path | None = None) -> Case:
    """Return the case of ``kernel`` for ``seed``, from ``folder`` if it is complete there, or computed.

    Float inputs are standard normal; half floats have the range that activations reach, as far as results are half
    floats too (`_spread`). Integer inputs that are indices stay within what they index, and words of
    quantised weights (uint32) have any value. Where outputs are then not finite (roots or logarithms of negative
    numbers), the inputs' absolute values plus 0.5 are used.

    The tolerance follows from type and reduction. The sum of K terms of random sign, in any order, has an error near
    u·√K relative to the result's root mean square, where u is the unit roundoff (Higham, Accuracy and Stability of
    Numerical Algorithms, chapter 4). A missing term changes the result by 1/√K of it, which is thousands of times more.
    So ``atol`` is ``16·u·√K`` of the outputs' root mean square. ``rtol`` is ``16·u·√K``, or 64 roundings where that is
    more, for the operations that are no reduction. A result that is computed as float32 and stored as a half float may
    be its neighbour too, and zero where it is no normal number. Where outputs are smaller than the terms of their sums
    (a clamp, a difference), the error of the CPU in the kernel's own precision counts: ``atol`` is at least 8 times as
    large.

    Args:
        kernel: the kernel to compute.
        seed: seeds the inputs.
        folder: where the file is kept; the cache by default.

    Raises:
        NonFiniteReferenceError: the reference is not finite with either kind of input.
        WgtuneError: ``folder`` cannot be written, as when the disk is full; or the cache limit is no number.
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
    for spread in dict.fromkeys((_spread(kernel), _NORMAL, None)):
        inputs = {i: _input(kernel, i, seed, bounds.get(i), spread) for i in range(len(kernel.params))}
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


def _spread(kernel: Kernel) -> tuple[float, float]:
    """Return mean and deviation of inputs that are half floats, for kernels that store half floats.

    Norms take large ones. So do products, as far as their sums stay half floats, and element-wise kernels, unless an
    exponential or an error function follows, which large values leave nothing of.
    """
    if not any(kernel.params[i].dtype == "float16" for i in kernel.outputs):
        return _NORMAL
    blocks: list[Any] = []
    tvm_ffi.structural_walk(kernel.func.body, [(SBlock, blocks.append)])
    sums = [block.body.value for block in blocks if block.init is not None and isinstance(block.body, tirx.BufferStore)]
    products = [one for one in sums if isinstance(one, tirx.Add) and _multiplies_two(one.b)]
    curved = bool(_called(kernel.func) & {"tirx.exp", "tirx.erf", "tirx.sigmoid", "tirx.tanh"})
    if any(isinstance(one, tirx.Max) for one in sums) or (curved and (products or not _reduces(blocks))):
        return _NORMAL
    mean, deviation = _LARGE
    if products:
        halves = sum(spec.dtype == "float16" for i, spec in enumerate(kernel.params) if i not in kernel.outputs)
        fitting = (_LARGEST_SUMS / math.sqrt(_reduction_length(kernel.func))) ** (1 / min(max(halves, 1), 2))
        mean, deviation = mean * min(1.0, fitting / deviation), min(deviation, fitting)
    return mean, deviation


def _reduces(blocks: list[Any]) -> bool:
    return any(axis.iter_type == tirx.IterVar.CommReduce for block in blocks for axis in block.iter_vars)


def _multiplies_two(value: Any) -> bool:
    """Return whether a product is of two tensors, and no square."""
    if not isinstance(value, tirx.Mul):
        return False
    loads: list[Any] = []
    tvm_ffi.structural_walk(value, [(tvm.ir.TensorLoad, loads.append)])
    return len(loads) == 2 and not loads[0].source.same_as(loads[1].source)


def _input(kernel: Kernel, index: int, seed: int, bound: int | None, spread: tuple[float, float] | None) -> np.ndarray:
    """Return an input; without a ``spread`` its floats are positive."""
    param = kernel.params[index]
    random = np.random.default_rng([seed, index])
    if param.dtype == "uint32" and bound is None:
        return random.integers(0, 1 << 32, param.shape, np.uint32)
    if not param.dtype.startswith("float"):
        return random.integers(0, bound or _PLAIN_INTEGERS, param.shape).astype(param.dtype)
    values = random.standard_normal(param.shape, np.float32)
    if spread is None:
        values = np.abs(values) + np.float32(0.5)
    else:
        mean, deviation = spread if param.dtype == "float16" else _NORMAL
        values = values * np.float32(deviation) + np.float32(mean)
    # Arithmetic makes a scalar of an array without axes.
    return np.asarray(values, param.dtype)


def _wide(dtype: str) -> str:
    return "float64" if dtype.startswith("float") else dtype


def _index_bounds(func: tirx.PrimFunc) -> dict[int, int]:
    """Return an exclusive upper bound for each integer parameter that is used as an index.

    It is the length of the shortest axis that the parameter indexes directly. An index that the kernel clamps itself
    (capture clamps the ids of embedding tables) is safe anywhere. It should reach all parts of a split table, so the
    parts' lengths are added.
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
    """Return the most terms that a block of ``func`` reduces to one element; 1 where nothing is reduced."""
    longest = 1

    def visit(block: Any) -> None:
        nonlocal longest
        extents = [int(axis.dom.extent) for axis in block.iter_vars if axis.iter_type == tirx.IterVar.CommReduce]
        longest = max(longest, math.prod(extents))

    tvm_ffi.structural_walk(func.body, [(SBlock, visit)])
    return longest


def _roundoff(kernel: Kernel) -> float:
    """Return the unit roundoff of the coarsest float type that the kernel computes; 0 where all are integers.

    What it only reads, copies or rounds counts as exact, such as half floats that are weights.
    """
    computed: set[str] = set()

    def visit(store: Any) -> None:
        if not isinstance(store.value, tvm.ir.TensorLoad) and not _rounds(store.value):
            computed.add(str(store.buffer.ty.dtype))

    tvm_ffi.structural_walk(kernel.func.body, [(tirx.BufferStore, visit)])
    return max((_UNIT_ROUNDOFF[dtype] for dtype in computed if dtype in _UNIT_ROUNDOFF), default=0.0)


def _rounds(value: Any) -> bool:
    """Return whether a value is one of float32, rounded to a half float."""
    return isinstance(value, tirx.Cast) and (str(value.ty.dtype), str(value.value.ty.dtype)) == ("float16", "float32")


def _rounds_results(kernel: Kernel) -> bool:
    stores: list[Any] = []
    tvm_ffi.structural_walk(kernel.func.body, [(tirx.BufferStore, stores.append)])
    return any(_rounds(store.value) for store in stores)


def _relative_tolerance(kernel: Kernel, length: int) -> float:
    stored = _STORED_HALF if _rounds_results(kernel) else 0.0
    return stored + _roundoff(kernel) * max(_ELEMENTWISE, _SUMMATION * math.sqrt(length))


def _absolute_tolerance(kernel: Kernel, length: int, expected: list[np.ndarray], rounding: float) -> float:
    kept = [wide[wide < _MASKED] for wide in (np.abs(e.astype(np.float64)) for e in expected)]
    typical = max((float(np.sqrt(np.mean(np.square(k)))) for k in kept if k.size), default=0.0)
    largest = max((float(k.max()) for k in kept if k.size), default=0.0)
    atol = max(_SUMMATION * _roundoff(kernel) * math.sqrt(length) * typical, _ROUNDING * rounding)
    if _rounds_results(kernel):
        atol += _LEAST_HALF
    called = _called(kernel.func)
    if called & {"tirx.sin", "tirx.cos"}:
        atol += _TRIGONOMETRIC
    if "tirx.erf" in called:
        atol += _ERROR_FUNCTION * largest
    return atol


def _rounding_error(kernel: Kernel, arrays: dict[str, np.ndarray], rtol: float) -> float:
    """Return the largest error beyond ``rtol`` of the CPU in the kernel's own precision."""
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
    """Return the names of the operators that ``func`` calls."""
    names: set[str] = set()
    tvm_ffi.structural_walk(func.body, [(tvm.ir.Call, lambda call: names.add(getattr(call.op, "name", "")))])
    return names


def _load(kernel: Kernel, path: Path) -> tuple[list[np.ndarray], float] | None:
    """Return expected outputs and rounding error of a case file; None where it is missing, damaged or another's."""
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
    """Write the file; raises OSError where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    try:
        with replaced_file(path) as whole:
            save_file(tensors, whole, {_ROUNDING_KEY: repr(rounding)})
    except SafetensorError as failure:  # how safetensors reports any error of the disk
        raise OSError(str(failure)) from failure
