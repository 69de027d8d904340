"""Whether a measurement is valid: outputs equal the reference, and the time is physically possible."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...support.enums import TrialState
from .job import MeasureJob, Measurement

_BLOCK = 1 << 20  # elements compared at once: a 1 GiB output must not need 8 GiB of double precision


@dataclass(frozen=True)
class Comparison:
    """Number of ``wrong`` elements, largest error (NaN if the output holds one), and a sentence ("" if none is)."""

    wrong: int
    max_error: float
    message: str


def verify_outputs(
    job: MeasureJob, expected: Mapping[int, np.ndarray], read_output: Callable[[int], np.ndarray]
) -> Measurement:
    """Compare every output with its reference.

    Args:
        job: The job, for its tolerances.
        expected: Reference of each output, by parameter index.
        read_output: Returns what the program wrote to the parameter of that index.

    Returns:
        A measurement without times: ``ok`` or ``wrong_result``, with the largest error of all outputs.
    """
    max_error = 0.0
    messages = []
    for index in sorted(expected):
        result = compare(f"parameter {index}", read_output(index), expected[index], job.rtol, job.atol)
        if math.isnan(result.max_error) or result.max_error > max_error:
            max_error = result.max_error
        if result.wrong:
            messages.append(result.message)
    state = TrialState.WRONG_RESULT if messages else TrialState.OK
    return Measurement(state, max_error=max_error, error="\n".join(messages))


def check_floor(measured: Measurement, floor_s: float) -> Measurement:
    """Return ``measured``, as ``implausible`` where its median sample is below ``floor_s`` seconds."""
    typical_s = statistics.median(measured.samples_s)
    if typical_s >= floor_s:
        return measured
    error = f"measured {typical_s:.3g} s, less than the {floor_s:.3g} s that the device needs at the very least"
    return replace(measured, state=TrialState.IMPLAUSIBLE, error=error)


def compare(name: str, got: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> Comparison:
    """Compare two arrays of equal shape and dtype.

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
        return Comparison(0, max_error, "")
    where = ", ".join(str(int(i)) for i in np.unravel_index(first, got.shape))
    message = (
        f"{wrong} of {flat_got.size} elements of {name} are wrong; the first is [{where}]: "
        f"{flat_got[first]} instead of {flat_expected[first]}"
    )
    if nans:
        message += f"; {nans} are NaN: computed so, or never written"
    elif not math.isnan(max_error):
        message += f"; the largest error is {max_error:.3g}"
    return Comparison(wrong, max_error, message)
