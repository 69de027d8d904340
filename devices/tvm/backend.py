"""Backend over TVM's own runtime: native code on CUDA, Metal or the processor."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.target import Target

from ...support.errors import DeviceError
from ..device import Device
from ..measure.bench import Backend
from ..measure.case_file import CaseArrays, CaseError, identify, read_case
from ..measure.job import Measurement, Peaks
from ..measure.phases import JobPhase, Notify, failed
from ..measure.precompile import Compiler
from ..measure.requirements import UnsupportedProgram
from ..measure.sampling import Sampler
from ..program import AnyProgram, NativeProgram

_FLUSHED_BYTES = 128 << 20
"""Written before each cold run: more than the last-level cache of almost every CPU and GPU of 2026."""

# Size of the programs that measure a GPU's peaks.
_PEAK_THREADS = 256
_PEAK_GROUPS = 4096
_PEAK_ROUNDS = 1024
_PEAK_COPY_BYTES = 64 << 20
_LAUNCHES = 1000

_Runnable = tuple[Any, list[Any]]
"""A built module of TVM's, and the tensors to call its ``main`` with."""


class TvmBackend(Backend[NativeProgram, _Runnable]):
    """One device of TVM's runtime, with the tensors of the last case."""

    def __init__(self, device: Device) -> None:
        """Open ``device``; raises DeviceError where TVM does not find it."""
        self.device = device
        kind = "cpu" if device.backend == "llvm" else device.backend
        self._device = tvm.device(kind, device.index)
        if not self._device.exist:
            raise DeviceError(f"TVM does not reach {device.key} any more", "`wgtune devices` lists what there is")
        self._case: _DeviceCase | None = None
        self._compiler = Compiler(_build)

    def accept(self, program: AnyProgram) -> NativeProgram:
        """As `Backend.accept`."""
        if not isinstance(program, NativeProgram):
            raise UnsupportedProgram(f"{self.device.key} does not run WGSL")
        return program

    def sampler(self) -> TvmTimer:
        """As `Backend.sampler`."""
        return TvmTimer(self._device)

    def load(self, path: Path, program: NativeProgram) -> CaseArrays:
        """As `Backend.load`."""
        if self._case is None or self._case.arrays.identity != identify(path):
            self._case = _DeviceCase(path, self._device)
        self._case.prepare()
        return self._case.arrays

    def compile(self, program: NativeProgram) -> tuple[_Runnable, float]:
        """As `Backend.compile`."""
        assert self._case is not None
        library, precompile_s = self._compiler.take(program)
        return (library, self._case.tensors), precompile_s

    def read_output(self, index: int) -> np.ndarray:
        """As `Backend.read_output`."""
        assert self._case is not None
        array: np.ndarray = self._case.tensors[index].numpy()
        return array

    def failure(self, error: Exception, phase: JobPhase) -> Measurement:
        """As `Backend.failure`. TVM raises several kinds of errors, so each is taken to be the program's."""
        return failed(phase, _reason(error))

    def precompile(self, program: AnyProgram) -> bool:
        """As `Backend.precompile`."""
        return isinstance(program, NativeProgram) and self._compiler.prepare(program)

    def measure_peaks(self, notify: Notify) -> Peaks:
        """As `Backend.measure_peaks`."""
        notify(JobPhase.RUNNING)
        if self.device.backend != "llvm":
            return self._gpu_peaks()
        library = tvm.tirx.build(_tiny_program(), target=Target({"kind": "llvm"}))
        return replace(_cpu_peaks(), launch_s=self._launch_s(library))

    def _gpu_peaks(self) -> Peaks:
        """Measure multiply-adds in registers, a copy of 64 MiB, and launches of a kernel of one thread."""
        threads = self.device.limits["maxComputeInvocationsPerWorkgroup"]
        target = {
            "kind": self.device.backend,
            "host": "llvm",
            "max_threads_per_block": threads,
            "max_num_threads": threads,
        }
        best = []
        for make in (_arithmetic_program, _copy_program):
            module, shapes, work = make()
            library = self._built(module, target)
            tensors = [tvm.runtime.tensor(np.ones(shape, np.float32), self._device) for shape in shapes]
            evaluator = library.time_evaluator("main", self._device, number=5, repeat=3)
            best.append(work / min(evaluator(*tensors).results))
        flops_per_s, bytes_per_s = best
        tiny = self._built(_on_threads(_tiny_program()["main"], 1), target)
        return Peaks(flops_per_s, bytes_per_s, self._launch_s(tiny))

    def _built(self, module: tvm.IRModule, target: Mapping[str, Any]) -> Any:
        try:
            return tvm.tirx.build(module, target=Target(target))
        except Exception as error:  # TVM raises several kinds, some of its own
            raise DeviceError(
                f"TVM cannot build a simple kernel for {self.device.key}: {_reason(error)}",
                "TVM needs the CUDA toolkit's nvcc on the PATH" if self.device.backend == "cuda" else "",
            ) from error

    def _launch_s(self, library: Any) -> float:
        """Return the seconds of one call of ``library``'s ``main`` among many that follow each other."""
        tensors = [tvm.runtime.tensor(np.ones(1, np.float32), self._device) for _ in range(2)]
        evaluator = library.time_evaluator("main", self._device, number=_LAUNCHES, repeat=3)
        return float(min(evaluator(*tensors).results))


def _build(program: NativeProgram) -> Any:
    return tvm.tirx.build(tvm.ir.load_json(program.module), target=Target(json.loads(program.target)))


class TvmTimer(Sampler[_Runnable]):
    """TVM's own timer of the device: events on CUDA, the wall clock after a synchronization elsewhere."""

    pass_s: ClassVar[Mapping[str, float]] = {"wall": 1e-3}

    def __init__(self, device: Any) -> None:
        super().__init__("wall")
        self._device = device

    def run_first(self, runnable: _Runnable) -> float:
        """As `Sampler.run_first`, by the wall clock: TVM's evaluator would run the program once more before it."""
        start = time.perf_counter()
        library, tensors = runnable
        library["main"](*tensors)
        self._device.sync()
        seconds = time.perf_counter() - start
        self.busy_s += seconds
        return seconds

    def run(self, runnable: _Runnable, repeat: int = 1) -> float:
        """As `Sampler.run`."""
        return self._timed(runnable, repeat, 0)

    def run_cold(self, runnable: _Runnable, count: int = 1) -> float:
        """As `Sampler.run_cold`."""
        return sum(self._timed(runnable, 1, _FLUSHED_BYTES) for _ in range(count))

    def _timed(self, runnable: _Runnable, number: int, flush_bytes: int) -> float:
        self.before_submit()
        start = time.perf_counter()
        library, tensors = runnable
        evaluator = library.time_evaluator("main", self._device, number=number, repeat=1, cache_flush_bytes=flush_bytes)
        seconds = float(evaluator(*tensors).results[0]) * number
        self.busy_s += time.perf_counter() - start
        return seconds


class _DeviceCase:
    """The arrays of a case file, and a tensor on the device for each parameter."""

    def __init__(self, path: Path, device: Any) -> None:
        self.arrays = read_case(path)
        count = len(self.arrays.sizes())
        if set(self.arrays.sizes()) != set(range(count)):
            raise CaseError(f"the case {path} lacks a parameter")
        self.tensors = [
            tvm.runtime.tensor(self.arrays.arguments.get(i, self.arrays.expected.get(i)), device) for i in range(count)
        ]

    def prepare(self) -> None:
        """Set every parameter as a first run must find it: inputs as given, outputs poisoned."""
        for index, tensor in enumerate(self.tensors):
            tensor.copyfrom(self.arrays.arguments.get(index, _poison(self.arrays.expected.get(index))))


def _poison(like: np.ndarray | None) -> np.ndarray | None:
    """Return ones in every bit: NaN as a float, and no plausible result as an integer."""
    return None if like is None else np.full(like.nbytes, 0xFF, np.uint8).view(like.dtype).reshape(like.shape)


def _cpu_peaks() -> Peaks:
    """Measure NumPy: its BLAS on all cores, and copies that stay in a core's cache, as a kernel's operands may."""
    square = np.ones((1024, 1024), np.float32)
    seconds = min(_seconds(lambda: square @ square) for _ in range(5))
    source = np.ones(32 << 10, np.float32)
    target = np.empty_like(source)

    def copies() -> None:
        for _ in range(100):
            np.copyto(target, source)

    copied = min(_seconds(copies) for _ in range(5)) / 100
    return Peaks(2 * 1024**3 / seconds, 2 * source.nbytes / copied)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _reason(error: Exception) -> str:
    """Return the line of TVM's message that says what is wrong: the last one, below its own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _arithmetic_program() -> tuple[tvm.IRModule, list[tuple[int, ...]], float]:
    """Return a module whose ``main`` multiplies and adds in registers, its parameters' shapes, and its operations."""
    count = _PEAK_GROUPS * _PEAK_THREADS
    x = te.placeholder((count,), "float32")
    k = te.reduce_axis((0, _PEAK_ROUNDS))
    y = te.compute((count,), lambda i: te.sum(x[i] * (x[i] + k.astype("float32")), k))
    return _on_threads(te.create_prim_func([x, y])), [(count,), (count,)], 3.0 * _PEAK_ROUNDS * count


def _copy_program() -> tuple[tvm.IRModule, list[tuple[int, ...]], float]:
    """Return a module whose ``main`` copies, its parameters' shapes, and the bytes that it reads and writes."""
    count = _PEAK_COPY_BYTES // 4
    x = te.placeholder((count,), "float32")
    y = te.compute((count,), lambda i: x[i])
    return _on_threads(te.create_prim_func([x, y])), [(count,), (count,)], 2.0 * _PEAK_COPY_BYTES


def _tiny_program() -> tvm.IRModule:
    """Return a module whose ``main`` adds to one element."""
    x = te.placeholder((1,), "float32")
    y = te.compute((1,), lambda i: x[i] + te.const(1.0, "float32"))
    return tvm.IRModule({"main": te.create_prim_func([x, y]).with_attr("global_symbol", "main")})


def _on_threads(func: tvm.tirx.PrimFunc, threads: int = _PEAK_THREADS) -> tvm.IRModule:
    schedule = Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    results, *reduction = schedule.get_loops(block)
    group, thread = schedule.split(results, [None, threads])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    if reduction:
        schedule.decompose_reduction(block, reduction[0])
    return schedule.mod
