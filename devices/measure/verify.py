"""What decides about a program beside running it: can a device take it, and is what came out to be believed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ...support.enums import TrialState
from ..device import Device
from ..program import Program
from .job import MeasureJob, Measurement
from .protocol import Phase
from .verifying import verify


def refusal(device: Device, program: Program) -> str:
    """Why ``device`` cannot run ``program``, seen before anything is spent on it; "" where it can."""
    missing = [name for name in program.needs.features if name not in device.features]
    if missing:
        return f"the program needs the WebGPU feature {', '.join(missing)}, which {device.key} lacks"
    limits = device.limits
    for name, needed in program.needs.limits().items():
        if needed > limits[name]:
            return f"the program needs {name} = {needed}, and {device.key} offers {limits[name]}"
    most = limits["maxComputeWorkgroupsPerDimension"]
    for dispatch in program.dispatches:
        if max(dispatch.grid) > most:
            return f"the grid {dispatch.grid} exceeds maxComputeWorkgroupsPerDimension = {most}"
    return ""


def oversized(device: Device, program: Program, parameters: Mapping[int, int]) -> str:
    """Which buffer is larger than ``device`` can hold or bind; "" where none is. ``parameters``: bytes by index."""
    for kind, sizes in (("parameter", parameters), ("scratch buffer", dict(enumerate(program.scratch)))):
        for index, nbytes in sizes.items():
            for name in ("maxStorageBufferBindingSize", "maxBufferSize"):
                most = device.limits[name]
                if nbytes > most:
                    return f"{kind} {index} takes {nbytes} bytes, and {device.key}'s {name} is {most}"
    return ""


def judge(job: MeasureJob, expected: Mapping[int, np.ndarray], output: Callable[[int], np.ndarray]) -> Measurement:
    """``ok`` or ``wrong_result``, with the largest error of all outputs; ``output`` reads one back, by index."""
    max_error = 0.0
    messages = []
    for index in sorted(expected):
        verdict = verify(f"parameter {index}", output(index), expected[index], job.rtol, job.atol)
        if math.isnan(verdict.max_error) or verdict.max_error > max_error:
            max_error = verdict.max_error
        if verdict.wrong:
            messages.append(verdict.message)
    state = TrialState.WRONG_RESULT if messages else TrialState.OK
    return Measurement(state, max_error=max_error, error="\n".join(messages))


def believe(measured: Measurement, floor_s: float) -> Measurement:
    """``implausible`` where the typical sample is under the shortest time that the device could need."""
    typical_s = statistics.median(measured.samples_s)
    if typical_s >= floor_s:
        return measured
    error = f"measured {typical_s:.3g} s, less than the {floor_s:.3g} s that the device needs at the very least"
    return replace(measured, state=TrialState.IMPLAUSIBLE, error=error)


def out_of_memory(phase: Phase, text: str) -> Measurement:
    """A program for which memory did not do, in the words of whoever noticed it."""
    return Measurement(TrialState.RUN_ERROR, error=f"out of memory while {phase.value}: {text}")
