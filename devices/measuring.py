"""Runs, verifies and times one job on an open device: what a worker's child process does all day."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import wgpu

from ..states import TrialState
from . import gpu as layer
from .case import Case, CaseError, Poison, identify
from .device import Device
from .job import MeasureJob, Measurement
from .program import Buffer, Program
from .timing import Timer
from .verifying import verify
from .wire import Phase


class Bench:
    """One open device with what outlives a job: the timer, the poison, and the last case.

    Successive candidates of a kernel share a case, so its inputs stay on the device until another case comes.
    """

    def __init__(self, device: Device) -> None:
        """Raises DeviceError where the device cannot be opened."""
        self.device = device
        self.gpu = layer.open_device(device, None, device.features)
        self.timer = Timer(self.gpu)
        self._poison = Poison(self.gpu)
        self._case: Case | None = None

    def measure(self, job: MeasureJob, notify: Callable[[Phase], None]) -> Measurement:
        """Runs, verifies and times ``job``; ``notify`` is told of each phase before it begins.

        Never raises for what the program does; raises CaseError for a case that is of no use to it.
        """
        refusal = self._refusal(job.program)
        if refusal:
            return Measurement(TrialState.BUILD_ERROR, error=refusal)
        phase = Phase.LOADING

        def enter(now: Phase) -> float:
            nonlocal phase
            phase = now
            notify(now)
            return time.perf_counter()

        self.timer.before_submit = lambda: notify(Phase.RUNNING)
        self.timer.busy_s = compile_s = verify_s = 0.0
        scratch: list[Any] = []
        try:
            start = enter(Phase.LOADING)
            case = self._load(job)
            refusal = self._oversized(job.program, case)
            if refusal:
                return Measurement(TrialState.BUILD_ERROR, error=refusal)
            scratch += [layer.storage_buffer(self.gpu, nbytes) for nbytes in job.program.scratch]
            case.prepare(self._poison)
            self._poison.fill(scratch)
            layer.wait(self.gpu)
            verify_s = time.perf_counter() - start

            start = enter(Phase.COMPILING)
            steps = self._compile(job.program, case, scratch)
            compile_s = time.perf_counter() - start

            enter(Phase.RUNNING)
            first_s = self.timer.run(steps)

            start = enter(Phase.VERIFYING)
            result = _verify(job, case)
            verify_s += time.perf_counter() - start

            if result.state is TrialState.OK:
                enter(Phase.RUNNING)
                taken = self.timer.sample(steps, job.sampling, first_s)
                result = replace(result, samples_s=taken.samples_s, warmup_s=taken.warmup_s, timer=self.timer.kind)
                result = _believe(result, job.floor_s)
        except (wgpu.GPUError, ValueError, RuntimeError, MemoryError) as error:
            result = failure(error, phase)
        finally:
            for buffer in scratch:
                buffer.destroy()
        return replace(result, compile_s=compile_s, run_s=self.timer.busy_s, verify_s=verify_s)

    def _refusal(self, program: Program) -> str:
        """Why this device cannot run the program, seen before anything is spent on it; "" where it can."""
        missing = [name for name in program.needs.features if name not in self.device.features]
        if missing:
            return f"the program needs the WebGPU feature {', '.join(missing)}, which {self.device.key} lacks"
        limits = self.device.limits
        for name, needed in program.needs.limits().items():
            if needed > limits[name]:
                return f"the program needs {name} = {needed}, and {self.device.key} offers {limits[name]}"
        most = limits["maxComputeWorkgroupsPerDimension"]
        for dispatch in program.dispatches:
            if max(dispatch.grid) > most:
                return f"the grid {dispatch.grid} exceeds maxComputeWorkgroupsPerDimension = {most}"
        return ""

    def _oversized(self, program: Program, case: Case) -> str:
        """Which buffer is larger than the device can hold or bind; "" where none is."""
        for kind, sizes in (("parameter", case.sizes()), ("scratch buffer", dict(enumerate(program.scratch)))):
            for index, nbytes in sizes.items():
                for name in ("maxStorageBufferBindingSize", "maxBufferSize"):
                    most = self.device.limits[name]
                    if nbytes > most:
                        return f"{kind} {index} takes {nbytes} bytes, and {self.device.key}'s {name} is {most}"
        return ""

    def _load(self, job: MeasureJob) -> Case:
        if self._case is None or self._case.identity != identify(job.case):
            if self._case is not None:
                self._case.release()
                self._case = None
            self._case = Case(self.gpu, job.case)
        sizes = self._case.sizes()
        for dispatch in job.program.dispatches:
            for buffer in dispatch.buffers:
                if buffer.kind == "arg" and buffer.index not in sizes:
                    raise CaseError(f"the case {job.case} lacks parameter {buffer.index} of the program")
        return self._case

    def _compile(self, program: Program, case: Case, scratch: list[Any]) -> list[layer.Step]:
        """Pipelines and bind groups, and the driver's own compilation behind them."""
        pipelines = [layer.make_pipeline(self.gpu, shader.source, shader.entry) for shader in program.shaders]
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


def failure(error: Exception, phase: Phase) -> Measurement:
    """The state that an exception amounts to which came up while ``phase`` was under way."""
    text = str(error).strip() or type(error).__name__
    if "device is lost" in text.lower() or "device lost" in text.lower():
        state = TrialState.DEVICE_LOST
    elif isinstance(error, wgpu.GPUOutOfMemoryError | MemoryError) or "not enough memory" in text.lower():
        state = TrialState.RUN_ERROR
        text = f"out of memory while {phase.value}: {text}"
    elif phase in (Phase.LOADING, Phase.COMPILING):
        state = TrialState.BUILD_ERROR
    else:
        state = TrialState.RUN_ERROR
    return Measurement(state, error=text)


def _range(buffer: Buffer, case: Case, scratch: list[Any], program: Program) -> layer.Range:
    if buffer.kind == "arg":
        return case.buffers[buffer.index], 0, case.sizes()[buffer.index]
    return scratch[buffer.index], 0, program.scratch[buffer.index]


def _verify(job: MeasureJob, case: Case) -> Measurement:
    """``ok`` or ``wrong_result``, with the largest error of all outputs."""
    max_error = 0.0
    messages = []
    for index in sorted(case.expected):
        verdict = verify(f"parameter {index}", case.output(index), case.expected[index], job.rtol, job.atol)
        if math.isnan(verdict.max_error) or verdict.max_error > max_error:
            max_error = verdict.max_error
        if verdict.wrong:
            messages.append(verdict.message)
    state = TrialState.WRONG_RESULT if messages else TrialState.OK
    return Measurement(state, max_error=max_error, error="\n".join(messages))


def _believe(measured: Measurement, floor_s: float) -> Measurement:
    """``implausible`` where the typical sample is under the shortest time that the device could need."""
    typical_s = statistics.median(measured.samples_s)
    if typical_s >= floor_s:
        return measured
    error = f"measured {typical_s:.3g} s, less than the {floor_s:.3g} s that the device needs at the very least"
    return replace(measured, state=TrialState.IMPLAUSIBLE, error=error)
