"""What decides about a program beside running it: can a device take it, and is what came out to be believed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...support.enums import TrialState
from ..device import Device
from ..program import Program
from .job import MeasureJob, Measurement
from .protocol import JobPhase

_BLOCK = 1 << 20  # elements compared at once: a 1 GiB output must not need 8 GiB of double precision


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


def out_of_memory(phase: JobPhase, text: str) -> Measurement:
    """A program for which memory did not do, in the words of whoever noticed it."""
    return Measurement(TrialState.RUN_ERROR, error=f"out of memory while {phase.value}: {text}")


@dataclass(frozen=True)
class Verdict:
    """How many elements are ``wrong``, the largest error (NaN if the output holds one), and a sentence ("" if none)."""

    wrong: int
    max_error: float
    message: str


def verify(name: str, got: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> Verdict:
    """Compares two arrays of equal shape and dtype.

    An element passes when it equals the expected one, or ``|got − expected| ≤ atol + rtol · |expected|`` with both
    finite. NaN never passes, not even where NaN is expected. ``name`` is what the message calls the output.
    """
    wrong = nans = 0
    max_error = 0.0
    first = -1
    flat_got, flat_expected = got.reshape(-1), expected.reshape(-1)
    for start in range(0, flat_got.size, _BLOCK):
        a = flat_got[start : start + _BLOCK].astype(np.float64)
        b = flat_expected[start : start + _BLOCK].astype(np.float64)
        with np.errstate(invalid="ignore"):
            # Equal infinities are right, and their difference is NaN.
            error = np.where(a == b, 0.0, np.abs(a - b))
            # An infinite tolerance would let everything pass where an infinity is expected.
            passes = (error == 0) | (np.isfinite(b) & (error <= atol + rtol * np.abs(b)))
        if error.size:
            max_error = float(np.maximum(max_error, error.max()))  # NaN wins
        failed = np.flatnonzero(~passes)
        if failed.size:
            first = start + int(failed[0]) if first < 0 else first
            wrong += failed.size
            nans += int(np.isnan(a).sum())
    if not wrong:
        return Verdict(0, max_error, "")
    where = ", ".join(str(int(i)) for i in np.unravel_index(first, got.shape))
    message = (
        f"{wrong} of {flat_got.size} elements of {name} are wrong; the first is [{where}]: "
        f"{flat_got[first]} instead of {flat_expected[first]}"
    )
    if nans:
        message += f"; {nans} are NaN: computed so, or never written"
    elif not math.isnan(max_error):
        message += f"; the largest error is {max_error:.3g}"
    return Verdict(wrong, max_error, message)
