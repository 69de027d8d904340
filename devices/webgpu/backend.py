"""Backend over wgpu: WGSL on Vulkan, Metal, D3D12 or OpenGL."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import wgpu

from ...support.enums import TrialState
from ..device import Device
from ..measure.bench import Backend
from ..measure.case_file import CaseArrays, identify
from ..measure.job import Measurement, Peaks
from ..measure.phases import JobPhase, Notify, failed, out_of_memory
from ..measure.precompile import Compiler
from ..measure.requirements import UnsupportedProgram, accept_wgsl, check_buffers
from ..program import AnyProgram, Buffer, Program
from ..quirks import quirks_of
from . import gpu as layer
from .device_case import DeviceCase, Poison
from .driver_threads import pin_driver_threads
from .peaks import measure_peaks
from .timing import Timer


class WebGpuBackend(Backend[Program, Sequence[layer.Step]]):
    """One device opened through wgpu, with the last case, the precompiled program, and the timer."""

    def __init__(self, device: Device) -> None:
        """Open ``device``; raises DeviceError where that fails."""
        self.device = device
        self._lost = _LostDeviceLog()
        logging.getLogger("wgpu").addHandler(self._lost)
        self.gpu = layer.open_device(device, None, device.features)
        self._quirks = quirks_of(device)
        pin_driver_threads(device, self.gpu)
        self._timer = Timer(self.gpu)
        self._poison = Poison(self.gpu)
        self._case: DeviceCase | None = None
        self._scratch: list[Any] = []
        self._compiler = Compiler(self._pipelines)

    def accept(self, program: AnyProgram) -> Program:
        """As `Backend.accept`."""
        return accept_wgsl(self.device, program)

    def sampler(self) -> Timer:
        """As `Backend.sampler`."""
        return self._timer

    def load(self, path: Path, program: Program) -> CaseArrays:
        """As `Backend.load`."""
        if self._case is None or self._case.arrays.identity != identify(path):
            if self._case is not None:
                self._case.release()
                self._case = None
            self._case = DeviceCase(self.gpu, path)
        check_buffers(self.device, program, path, self._case.arrays.sizes())
        self._scratch += [layer.storage_buffer(self.gpu, nbytes) for nbytes in program.scratch]
        self._case.prepare(self._poison)
        self._poison.fill(self._scratch)
        layer.wait(self.gpu)
        return self._case.arrays

    def compile(self, program: Program) -> tuple[list[layer.Step], float]:
        """As `Backend.compile`: pipelines, bind groups, and the driver's own compilation behind the pipelines."""
        assert self._case is not None
        pipelines, precompile_s = self._compiler.take(program)
        steps = self._bind(program, pipelines, self._case)
        if self._quirks.compiles_at_first_dispatch:
            # An empty grid keeps the driver's compiling apart from running.
            self.gpu.queue.submit([layer.encode(self.gpu, [replace(step, grid=(0, 0, 0)) for step in steps])])
            layer.wait(self.gpu)
        return steps, precompile_s

    def read_output(self, index: int) -> np.ndarray:
        """As `Backend.read_output`."""
        assert self._case is not None
        return self._case.output(index)

    def failure(self, error: Exception, phase: JobPhase) -> Measurement | None:
        """As `Backend.failure`: errors of wgpu, of memory, and of the shader's bindings are the program's."""
        if not isinstance(error, wgpu.GPUError | ValueError | RuntimeError | MemoryError):
            return None
        text = str(error).strip() or type(error).__name__
        if "device is lost" in text.lower() or "device lost" in text.lower():
            return Measurement(TrialState.DEVICE_LOST, error=text)
        if isinstance(error, wgpu.GPUOutOfMemoryError | MemoryError) or "not enough memory" in text.lower():
            return out_of_memory(phase, text)
        return failed(phase, text)

    def precompile(self, program: AnyProgram) -> bool:
        """As `Backend.precompile`: makes the pipelines.

        Nothing is submitted, because another process may be measuring on the device. A driver that compiles at the
        first dispatch (`Quirks.compiles_at_first_dispatch`) therefore does its part later.
        """
        try:
            accepted = self.accept(program)
        except UnsupportedProgram:
            return False
        return self._compiler.prepare(accepted)

    def measure_peaks(self, notify: Notify) -> Peaks:
        """As `Backend.measure_peaks`; takes about a second."""
        return measure_peaks(self.gpu, notify)

    def end_job(self) -> None:
        """As `Backend.end_job`: frees the scratch buffers."""
        for buffer in self._scratch:
            buffer.destroy()
        self._scratch.clear()

    @property
    def lost_message(self) -> str:
        """As `Backend.lost_message`."""
        return self._lost.message

    def _pipelines(self, program: Program) -> list[layer.Pipeline]:
        return [layer.make_pipeline(self.gpu, shader.source, shader.entry) for shader in program.shaders]

    def _bind(self, program: Program, pipelines: list[layer.Pipeline], case: DeviceCase) -> list[layer.Step]:
        """Make the bind group of each dispatch; inputs that a shader may write are marked as changed."""
        steps = []
        for dispatch in program.dispatches:
            pipeline = pipelines[dispatch.shader]
            ranges = [self._range(buffer, case, program) for buffer in dispatch.buffers]
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
        return steps

    def _range(self, buffer: Buffer, case: DeviceCase, program: Program) -> layer.Range:
        if buffer.kind == "arg":
            return case.buffers[buffer.index], 0, case.arrays.sizes()[buffer.index]
        return self._scratch[buffer.index], 0, program.scratch[buffer.index]


class _LostDeviceLog(logging.Handler):
    """Keeps wgpu's message of a lost device, which only its log has where no call was under way."""

    message = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "device was lost" in text.lower():
            self.message = text
