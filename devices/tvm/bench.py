"""Builds, runs, verifies and times one job through TVM's own runtime: what a TVM worker's child does all day."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.target import Target

from ...support.enums import TrialState
from ...support.errors import DeviceError
from ..device import Device
from ..measure.case_file import CaseError, identify, read_case
from ..measure.job import MeasureJob, Measurement, Peaks
from ..measure.precompile import Compiler
from ..measure.protocol import JobPhase
from ..measure.sampling import Sampler
from ..measure.verify import believe, judge
from ..program import AnyProgram, NativeProgram

_FLUSHED_BYTES = 128 << 20
"""Written before each cold run: more than the last cache of today's CPUs and GPUs holds, but for a few."""

_PEAK_THREADS = 256
_PEAK_GROUPS = 4096
_PEAK_ROUNDS = 1024
_PEAK_COPY_BYTES = 64 << 20


class TvmBench:
    """One device of TVM's runtime, with the arguments of the last case on it."""

    def __init__(self, device: Device) -> None:
        """Raises DeviceError where TVM does not find the device."""
        self.device = device
        kind = "cpu" if device.backend == "llvm" else device.backend
        self._device = tvm.device(kind, device.index)
        if not self._device.exist:
            raise DeviceError(f"TVM does not reach {device.key} any more", "`wgtune devices` lists what there is")
        self._case: _Case | None = None
        self._compiler = Compiler(_build)

    def prepare(self, program: AnyProgram, notify: Callable[[JobPhase], None]) -> bool:
        """Builds ``program``, which is to be measured next; False where that fails, as it will then."""
        if not isinstance(program, NativeProgram):
            return False
        notify(JobPhase.COMPILING)
        return self._compiler.prepare(program)

    def measure(self, job: MeasureJob, notify: Callable[[JobPhase], None]) -> Measurement:
        """Builds, runs, verifies and times ``job``; ``notify`` is told of each phase before it begins.

        Never raises for what the program does; raises CaseError for a case that is of no use to it.
        """
        program = job.program
        if not isinstance(program, NativeProgram):
            return Measurement(TrialState.BUILD_ERROR, error=f"{self.device.key} does not run WGSL")
        phase = JobPhase.LOADING

        def enter(now: JobPhase) -> float:
            nonlocal phase
            phase = now
            notify(now)
            return time.perf_counter()

        compile_s = verify_s = 0.0
        clock = _Clock(self._device, lambda: notify(JobPhase.RUNNING))
        try:
            start = enter(JobPhase.LOADING)
            case = self._load(job)
            case.prepare()
            verify_s = time.perf_counter() - start

            start = enter(JobPhase.COMPILING)
            library, ahead_s = self._compiler.take(program)
            compile_s = ahead_s + time.perf_counter() - start

            enter(JobPhase.RUNNING)
            runnable = (library, case.tensors)
            first_s = clock.first(runnable)

            start = enter(JobPhase.VERIFYING)
            result = judge(job, case.arrays.expected, case.output)
            verify_s += time.perf_counter() - start

            if result.state is TrialState.OK:
                enter(JobPhase.RUNNING)
                taken = clock.sample(runnable, job.sampling, first_s)
                result = replace(result, samples_s=taken.samples_s, warmup_s=taken.warmup_s, timer=clock.kind)
                result = believe(result, job.floor_s)
        except CaseError:
            raise
        except Exception as error:  # TVM raises several kinds, some of its own
            early = phase in (JobPhase.LOADING, JobPhase.COMPILING)
            result = Measurement(TrialState.BUILD_ERROR if early else TrialState.RUN_ERROR, error=_reason(error))
        return replace(result, compile_s=compile_s, run_s=clock.busy_s, verify_s=verify_s)

    def measure_peaks(self, notify: Callable[[JobPhase], None]) -> Peaks:
        """What the device does at best at arithmetic and at copying; raises DeviceError where it does neither."""
        notify(JobPhase.RUNNING)
        return _cpu_peaks() if self.device.backend == "llvm" else self._gpu_peaks()

    def _load(self, job: MeasureJob) -> _Case:
        if self._case is None or self._case.identity != identify(job.case):
            self._case = _Case(job, self._device)
        return self._case

    def _gpu_peaks(self) -> Peaks:
        """From multiply-adds in registers, and a copy of 64 MiB."""
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
            try:
                library = tvm.tirx.build(module, target=Target(target))
            except Exception as error:  # TVM raises several kinds, some of its own
                raise DeviceError(
                    f"TVM cannot build a simple kernel for {self.device.key}: {_reason(error)}",
                    "TVM needs the CUDA toolkit's nvcc on the PATH" if self.device.backend == "cuda" else "",
                ) from error
            tensors = [tvm.runtime.tensor(np.ones(shape, np.float32), self._device) for shape in shapes]
            evaluator = library.time_evaluator("main", self._device, number=5, repeat=3)
            best.append(work / min(evaluator(*tensors).results))
        return Peaks(*best)


def _build(program: NativeProgram) -> Any:
    return tvm.tirx.build(tvm.ir.load_json(program.module), target=Target(json.loads(program.target)))


_Runnable = tuple[Any, list[Any]]
"""A built module of TVM's, and the tensors to call its ``main`` with."""


class _Clock(Sampler[_Runnable]):
    """TVM's own timer of the device: events on CUDA, the clock after a synchronization elsewhere."""

    pass_s: ClassVar[Mapping[str, float]] = {"wall": 1e-3}

    def __init__(self, device: Any, before_run: Callable[[], None]) -> None:
        super().__init__("wall")
        self._device = device
        self._before_run = before_run

    def first(self, steps: _Runnable) -> float:
        """Seconds of one run by the wall clock, without any that TVM's evaluator would put before it."""
        start = time.perf_counter()
        steps[0]["main"](*steps[1])
        self._device.sync()
        seconds = time.perf_counter() - start
        self.busy_s += seconds
        return seconds

    def run(self, steps: _Runnable, repeat: int = 1) -> float:
        """As `Sampler.run`."""
        return self._timed(steps, repeat, 0)

    def run_cold(self, steps: _Runnable, count: int = 1) -> float:
        """As `Sampler.run_cold`."""
        return sum(self._timed(steps, 1, _FLUSHED_BYTES) for _ in range(count))

    def _timed(self, steps: _Runnable, number: int, flush_bytes: int) -> float:
        self._before_run()
        start = time.perf_counter()
        library, tensors = steps
        evaluator = library.time_evaluator("main", self._device, number=number, repeat=1, cache_flush_bytes=flush_bytes)
        seconds = float(evaluator(*tensors).results[0]) * number
        self.busy_s += time.perf_counter() - start
        return seconds


class _Case:
    """A case's tensors on the device."""

    def __init__(self, job: MeasureJob, device: Any) -> None:
        self.identity = identify(job.case)
        self.arrays = read_case(job.case)
        count = len(self.arrays.sizes())
        if set(self.arrays.sizes()) != set(range(count)):
            raise CaseError(f"the case {job.case} lacks a parameter")
        self.tensors = [
            tvm.runtime.tensor(self.arrays.arguments.get(i, self.arrays.expected.get(i)), device) for i in range(count)
        ]

    def prepare(self) -> None:
        """Inputs as given; ones in every bit of outputs: NaN as a float, and no plausible result as an integer."""
        for index, tensor in enumerate(self.tensors):
            tensor.copyfrom(self.arrays.arguments.get(index, _poison(self.arrays.expected.get(index))))

    def output(self, index: int) -> np.ndarray:
        """What is in parameter ``index`` now."""
        array: np.ndarray = self.tensors[index].numpy()
        return array


def _poison(like: np.ndarray | None) -> np.ndarray | None:
    return None if like is None else np.full(like.nbytes, 0xFF, np.uint8).view(like.dtype).reshape(like.shape)


def _cpu_peaks() -> Peaks:
    """By NumPy: its BLAS on all cores, and copies that stay in a core's cache, as a kernel's operands may."""
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
    """The line of TVM's message that says what is wrong: the last one, below its own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _arithmetic_program() -> tuple[tvm.IRModule, list[tuple[int, ...]], float]:
    """A module whose ``main`` multiplies and adds in registers; its parameters' shapes, and its operations."""
    count = _PEAK_GROUPS * _PEAK_THREADS
    x = te.placeholder((count,), "float32")
    k = te.reduce_axis((0, _PEAK_ROUNDS))
    y = te.compute((count,), lambda i: te.sum(x[i] * (x[i] + k.astype("float32")), k))
    return _on_threads(te.create_prim_func([x, y])), [(count,), (count,)], 3.0 * _PEAK_ROUNDS * count


def _copy_program() -> tuple[tvm.IRModule, list[tuple[int, ...]], float]:
    """A module whose ``main`` copies; its parameters' shapes, and the bytes that it reads and writes."""
    count = _PEAK_COPY_BYTES // 4
    x = te.placeholder((count,), "float32")
    y = te.compute((count,), lambda i: x[i])
    return _on_threads(te.create_prim_func([x, y])), [(count,), (count,)], 2.0 * _PEAK_COPY_BYTES


def _on_threads(func: tvm.tirx.PrimFunc) -> tvm.IRModule:
    schedule = Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    results, *reduction = schedule.get_loops(block)
    group, thread = schedule.split(results, [None, _PEAK_THREADS])
    schedule.bind(group, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    if reduction:
        schedule.decompose_reduction(block, reduction[0])
    return schedule.mod
