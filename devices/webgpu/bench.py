"""Runs, verifies and times one job on an open device: what a worker's child process does all day."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import wgpu

from ...support.enums import TrialState
from ..device import Device
from ..measure.case_file import CaseError, identify
from ..measure.job import MeasureJob, Measurement
from ..measure.peak_programs import ARITHMETIC, ARITHMETIC_GROUP_BYTES
from ..measure.precompile import Compiler
from ..measure.protocol import JobPhase
from ..measure.verify import believe, judge, out_of_memory, oversized, refusal
from ..program import AnyProgram, Buffer, Program
from . import gpu as layer
from .cpu_affinity import give_each_thread_a_core
from .device_case import Case, Poison
from .timing import Timer

_BUSY_GROUPS, _BUSY_RUNS = 256, 10


class Bench:
    """One open device with what outlives a job: the timer, the poison, the last case, and what was compiled ahead.

    Successive candidates of a kernel share a case, so its inputs stay on the device until another case comes.
    """

    def __init__(self, device: Device) -> None:
        """Raises DeviceError where the device cannot be opened."""
        self.device = device
        self.gpu = layer.open_device(device, None, device.features)
        if device.software:
            give_each_thread_a_core(self._compute)
        self.timer = Timer(self.gpu)
        self._poison = Poison(self.gpu)
        self._case: Case | None = None
        self._compiler = Compiler(self._pipelines)

    def prepare(self, program: AnyProgram, notify: Callable[[JobPhase], None]) -> bool:
        """Makes the pipelines of ``program``, which is to be measured next; False where that fails, as it will then.

        Nothing is submitted, because something else may be timed on the device. So drivers that compile at the first
        dispatch only (llvmpipe) have their work still before them.
        """
        if not isinstance(program, Program) or refusal(self.device, program):
            return False
        notify(JobPhase.COMPILING)
        return self._compiler.prepare(program)

    def measure(self, job: MeasureJob, notify: Callable[[JobPhase], None]) -> Measurement:
        """Runs, verifies and times ``job``; ``notify`` is told of each phase before it begins.

        Never raises for what the program does; raises CaseError for a case that is of no use to it.
        """
        unfit = refusal(self.device, job.wgsl)
        if unfit:
            return Measurement(TrialState.BUILD_ERROR, error=unfit)
        phase = JobPhase.LOADING

        def enter(now: JobPhase) -> float:
            nonlocal phase
            phase = now
            notify(now)
            return time.perf_counter()

        self.timer.before_submit = lambda: notify(JobPhase.RUNNING)
        self.timer.busy_s = compile_s = verify_s = 0.0
        scratch: list[Any] = []
        try:
            start = enter(JobPhase.LOADING)
            case = self._load(job)
            unfit = oversized(self.device, job.wgsl, case.sizes())
            if unfit:
                return Measurement(TrialState.BUILD_ERROR, error=unfit)
            scratch += [layer.storage_buffer(self.gpu, nbytes) for nbytes in job.wgsl.scratch]
            case.prepare(self._poison)
            self._poison.fill(scratch)
            layer.wait(self.gpu)
            verify_s = time.perf_counter() - start

            start = enter(JobPhase.COMPILING)
            pipelines, ahead_s = self._compiler.take(job.wgsl)
            steps = self._bind(job.wgsl, pipelines, case, scratch)
            compile_s = ahead_s + time.perf_counter() - start

            enter(JobPhase.RUNNING)
            first_s = self.timer.run(steps)

            start = enter(JobPhase.VERIFYING)
            result = judge(job, case.expected, case.output)
            verify_s += time.perf_counter() - start

            if result.state is TrialState.OK:
                enter(JobPhase.RUNNING)
                taken = self.timer.sample(steps, job.sampling, first_s)
                result = replace(result, samples_s=taken.samples_s, warmup_s=taken.warmup_s, timer=self.timer.kind)
                result = believe(result, job.floor_s)
        except (wgpu.GPUError, ValueError, RuntimeError, MemoryError) as error:
            result = failure(error, phase)
        finally:
            for buffer in scratch:
                buffer.destroy()
        return replace(result, compile_s=compile_s, run_s=self.timer.busy_s, verify_s=verify_s)

    def _compute(self) -> None:
        """Keeps all of the device busy for some hundredths of a second."""
        buffer = layer.storage_buffer(self.gpu, _BUSY_GROUPS * ARITHMETIC_GROUP_BYTES)
        pipeline = layer.make_pipeline(self.gpu, ARITHMETIC, "main")
        group = layer.bind(self.gpu, pipeline, [(buffer, 0, buffer.size)])
        step = layer.Step(pipeline, group, (_BUSY_GROUPS, 1, 1))
        for _ in range(_BUSY_RUNS):
            self.gpu.queue.submit([layer.encode(self.gpu, [step])])
            layer.wait(self.gpu)
        buffer.destroy()

    def _load(self, job: MeasureJob) -> Case:
        if self._case is None or self._case.identity != identify(job.case):
            if self._case is not None:
                self._case.release()
                self._case = None
            self._case = Case(self.gpu, job.case)
        sizes = self._case.sizes()
        for dispatch in job.wgsl.dispatches:
            for buffer in dispatch.buffers:
                if buffer.kind == "arg" and buffer.index not in sizes:
                    raise CaseError(f"the case {job.case} lacks parameter {buffer.index} of the program")
        return self._case

    def _pipelines(self, program: Program) -> list[layer.Pipeline]:
        return [layer.make_pipeline(self.gpu, shader.source, shader.entry) for shader in program.shaders]

    def _bind(
        self, program: Program, pipelines: list[layer.Pipeline], case: Case, scratch: list[Any]
    ) -> list[layer.Step]:
        """Bind groups, and the driver's own compilation behind the pipelines, as far as that is still to be done."""
        steps = []
        for dispatch in program.dispatches:
            pipeline = pipelines[dispatch.shader]
            ranges = [_range(buffer, case, scratch, program) for buffer in dispatch.buffers]
            if dispatch.uniform:
                uniform = layer.uniform_buffer(self.gpu, dispatch.uniform)
                ranges.append((uniform, 0, uniform.size))
            if len(ranges) != len(pipeline.types):
                raise ValueError(
                    f"the shader {program.shaders[dispatch.shader].entry} declares {len(pipeline.types)} bindings, "
                    f"and its dispatch has {len(ranges)}"
                )
            case.dirty.update(
                buffer.index
                for buffer, kind in zip(dispatch.buffers, pipeline.types, strict=False)
                if buffer.kind == "arg" and kind == "storage"
            )
            steps.append(layer.Step(pipeline, layer.bind(self.gpu, pipeline, ranges), dispatch.grid))
        # Some drivers (llvmpipe) compile at the first dispatch and not at the pipeline's creation. They do so before
        # they look at the grid: an empty one keeps their compiling apart from running.
        self.gpu.queue.submit([layer.encode(self.gpu, [replace(step, grid=(0, 0, 0)) for step in steps])])
        layer.wait(self.gpu)
        return steps


def failure(error: Exception, phase: JobPhase) -> Measurement:
    """The state that an exception amounts to which came up while ``phase`` was under way."""
    text = str(error).strip() or type(error).__name__
    if "device is lost" in text.lower() or "device lost" in text.lower():
        state = TrialState.DEVICE_LOST
    elif isinstance(error, wgpu.GPUOutOfMemoryError | MemoryError) or "not enough memory" in text.lower():
        return out_of_memory(phase, text)
    elif phase in (JobPhase.LOADING, JobPhase.COMPILING):
        state = TrialState.BUILD_ERROR
    else:
        state = TrialState.RUN_ERROR
    return Measurement(state, error=text)


def _range(buffer: Buffer, case: Case, scratch: list[Any], program: Program) -> layer.Range:
    if buffer.kind == "arg":
        return case.buffers[buffer.index], 0, case.sizes()[buffer.index]
    return scratch[buffer.index], 0, program.scratch[buffer.index]
