"""Builds, runs, verifies and times one job through TVM's own runtime: what a TVM worker's child does all day."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from safetensors import SafetensorError, safe_open
from tvm.target import Target

from ..errors import DeviceError
from ..medians import median_error, median_interval
from ..states import CacheState, TrialState
from .device import Device
from .job import MeasureJob, Measurement, Peaks, Sampling
from .native_program import NativeProgram
from .verifying import verify
from .wire import Phase

_PASS_S = 1e-3
"""A timed pass is at least so long: a launch and the clock cost microseconds."""
_MAX_REPEAT = 1000
_FLUSHED_BYTES = 128 << 20
"""Written before each cold run: more than the last cache of today's CPUs and GPUs holds, but for a few."""


class CaseError(Exception):
    """A case cannot be read, or does not fit its program: the fault of whoever made the job, not of a candidate."""


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

    def measure(self, job: MeasureJob, notify: Callable[[Phase], None]) -> Measurement:
        """Builds, runs, verifies and times ``job``; ``notify`` is told of each phase before it begins.

        Never raises for what the program does; raises CaseError for a case that is of no use to it.
        """
        assert isinstance(job.program, NativeProgram)
        seconds = dict.fromkeys(Phase, 0.0)
        phase, since = Phase.LOADING, time.perf_counter()

        def enter(now: Phase) -> None:
            nonlocal phase, since
            seconds[phase] += time.perf_counter() - since
            phase, since = now, time.perf_counter()
            notify(now)

        try:
            enter(Phase.LOADING)
            if self._case is None or self._case.identity != _identify(job):
                self._case = _Case(job, self._device)
            self._case.poison()
            enter(Phase.COMPILING)
            module = tvm.ir.load_json(job.program.module)
            library = tvm.tirx.build(module, target=Target(json.loads(job.program.target)))
            enter(Phase.RUNNING)
            start = time.perf_counter()
            library["main"](*self._case.arguments)
            self._device.sync()
            first_s = time.perf_counter() - start
            enter(Phase.VERIFYING)
            result = self._case.verify(job)
            if result.state is TrialState.OK:
                enter(Phase.RUNNING)
                warmup_s, samples_s = self._sample(library, job.sampling, first_s, notify)
                result = _believe(result, warmup_s, samples_s, job.floor_s)
        except CaseError:
            raise
        except Exception as error:  # TVM raises several kinds, some of its own
            state = TrialState.BUILD_ERROR if phase in (Phase.LOADING, Phase.COMPILING) else TrialState.RUN_ERROR
            result = Measurement(state, error=_reason(error))
        seconds[phase] += time.perf_counter() - since
        return replace(
            result,
            compile_s=seconds[Phase.COMPILING],
            run_s=seconds[Phase.RUNNING],
            verify_s=seconds[Phase.LOADING] + seconds[Phase.VERIFYING],
        )

    def measure_peaks(self, notify: Callable[[Phase], None]) -> Peaks:
        """What the device did at best at a matrix product and at a copy; raises DeviceError where it does neither."""
        notify(Phase.COMPILING)
        if self.device.backend == "llvm":
            notify(Phase.RUNNING)
            return _cpu_peaks()
        notify(Phase.RUNNING)
        return self._gpu_peaks()

    def _sample(
        self, library: Any, sampling: Sampling, first_s: float, notify: Callable[[Phase], None]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Warm-up and samples, in seconds per run, by TVM's timer of the device (events on CUDA)."""
        assert self._case is not None
        cold = sampling.cache is CacheState.COLD
        slow = sampling.give_up_s is not None and first_s > sampling.give_up_s
        number = 1 if cold or slow else max(1, min(_MAX_REPEAT, math.ceil(_PASS_S / max(first_s, 1e-9))))

        def timed(count: int) -> float:
            notify(Phase.RUNNING)  # each has the time limit of a run
            evaluator = library.time_evaluator(
                "main", self._device, number=count, repeat=1, cache_flush_bytes=_FLUSHED_BYTES if cold else 0
            )
            return float(evaluator(*self._case.arguments).results[0])  # type: ignore[union-attr]

        warmup = [first_s]
        if slow:
            return tuple(warmup), tuple(timed(1) for _ in range(sampling.min_samples_slow))
        for _ in range(sampling.warmup):
            warmup.append(timed(number))
        if not cold:  # the first run was cold, so the estimate is mostly too low
            number = max(1, min(_MAX_REPEAT, math.ceil(_PASS_S / max(warmup[-1], 1e-9))))
        samples: list[float] = []
        start = time.perf_counter()
        while not _enough(samples, time.perf_counter() - start, sampling):
            samples.append(timed(number))
        return tuple(warmup), tuple(samples)

    def _gpu_peaks(self) -> Peaks:
        """From a chain of multiply-adds in registers, and a copy of 64 MiB."""
        from .tvm_peaks import arithmetic_program, copy_program

        target = {"kind": self.device.backend, "host": "llvm", **_limits(self.device)}
        best = []
        for make in (arithmetic_program, copy_program):
            module, shapes, work = make()
            try:
                library = tvm.tirx.build(module, target=Target(target))
            except Exception as error:  # TVM raises several kinds, some of its own
                raise DeviceError(
                    f"TVM cannot build a simple kernel for {self.device.key}: {_reason(error)}",
                    "TVM needs the CUDA toolkit's nvcc on the PATH" if self.device.backend == "cuda" else "",
                ) from error
            arguments = [tvm.runtime.tensor(np.ones(shape, np.float32), self._device) for shape in shapes]
            evaluator = library.time_evaluator("main", self._device, number=5, repeat=3)
            best.append(work / min(evaluator(*arguments).results))
        return Peaks(*best)


class _Case:
    """The safetensors file of a job on the device: inputs, poisoned outputs, and what must come out."""

    def __init__(self, job: MeasureJob, device: Any) -> None:
        self.identity = _identify(job)
        try:
            with safe_open(job.case, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise CaseError(f"the case {job.case} cannot be read: {error}") from error
        self._inputs = {int(n.removeprefix("arg")): a for n, a in tensors.items() if n.startswith("arg")}
        self._expected = {int(n.removeprefix("expected")): a for n, a in tensors.items() if n.startswith("expected")}
        count = len(self._inputs.keys() | self._expected.keys())
        if set(range(count)) != self._inputs.keys() | self._expected.keys():
            raise CaseError(f"the case {job.case} lacks a parameter")
        self.arguments = [tvm.runtime.tensor(self._inputs.get(i, self._expected.get(i)), device) for i in range(count)]

    def poison(self) -> None:
        """Inputs as given; ones in every bit of outputs: NaN as a float, and no plausible result as an integer."""
        for index, argument in enumerate(self.arguments):
            if index in self._inputs:
                argument.copyfrom(self._inputs[index])
            else:
                shape, dtype = self._expected[index].shape, self._expected[index].dtype
                argument.copyfrom(
                    np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)
                )

    def verify(self, job: MeasureJob) -> Measurement:
        """``ok`` or ``wrong_result``, with the largest error of all outputs."""
        worst, messages = 0.0, []
        for index in sorted(self._expected):
            got = self.arguments[index].numpy()
            verdict = verify(f"parameter {index}", got, self._expected[index], job.rtol, job.atol)
            if math.isnan(verdict.max_error) or verdict.max_error > worst:
                worst = verdict.max_error
            if verdict.wrong:
                messages.append(verdict.message)
        state = TrialState.WRONG_RESULT if messages else TrialState.OK
        return Measurement(state, max_error=worst, error="\n".join(messages))


def _identify(job: MeasureJob) -> tuple[str, int, int]:
    """What tells one case file from another, or an earlier version of itself."""
    try:
        stat = job.case.stat()
    except OSError as error:
        raise CaseError(f"the case {job.case} cannot be read: {error}") from error
    return str(job.case), stat.st_mtime_ns, stat.st_size


def _believe(
    measured: Measurement, warmup_s: tuple[float, ...], samples_s: tuple[float, ...], floor_s: float
) -> Measurement:
    typical_s = float(np.median(samples_s))
    state, error = TrialState.OK, ""
    if typical_s < floor_s:
        state = TrialState.IMPLAUSIBLE
        error = f"measured {typical_s:.3g} s, less than the {floor_s:.3g} s that the device needs at the very least"
    return Measurement(
        state, samples_s=samples_s, warmup_s=warmup_s, timer="wall", max_error=measured.max_error, error=error
    )


def _enough(samples: list[float], busy_s: float, sampling: Sampling) -> bool:
    if len(samples) < sampling.min_samples:
        return False
    if len(samples) >= sampling.max_samples or busy_s >= sampling.max_seconds:
        return True
    interval = median_interval(samples)
    if interval is None:
        return False
    if sampling.rival_s is not None and interval.low > sampling.rival_s:
        return True
    return busy_s >= sampling.min_seconds and median_error(samples) <= sampling.precision


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


def _limits(device: Device) -> dict[str, int]:
    threads = device.limits["maxComputeInvocationsPerWorkgroup"]
    return {
        "max_threads_per_block": threads,
        "max_num_threads": threads,
        "thread_warp_size": 32,
        "max_shared_memory_per_block": device.limits["maxComputeWorkgroupStorageSize"],
    }


def _reason(error: Exception) -> str:
    """The line of TVM's message that says what is wrong: the last one, below its own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
