"""Whether an output is what it should be: element by element, against a reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 20  # elements compared at once: a 1 GiB output must not need 8 GiB of double precision


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
