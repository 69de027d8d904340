"""Numbers as people read them: durations, ratios, shares, sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MISSING = "—"
"""Text in place of a number that is missing."""

_DURATIONS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@dataclass(frozen=True)
class TimeUnit:
    """One unit for a whole column, so that its numbers align and compare."""

    seconds: float
    name: str
    decimals: int

    def format(self, seconds: float | None) -> str:
        """Return the number without its unit."""
        return MISSING if seconds is None else f"{seconds / self.seconds:,.{self.decimals}f}"


def column_unit(values_s: Iterable[float | None]) -> TimeUnit:
    """Return one unit in which the longest duration is not small and the shortest still shows digits."""
    known = [value for value in values_s if value]
    longest, shortest = max(known, default=1e-3), min(known, default=1e-3)
    if shortest >= 0.1:
        return TimeUnit(1.0, "s", 2)
    if longest >= 1e-3:
        return TimeUnit(1e-3, "ms", 3 if shortest < 0.1e-3 or longest < 0.1 else 2)
    return TimeUnit(1e-6, "µs", 1)


def duration(seconds: float | None) -> str:
    """Return a duration with its unit, in three digits: ``12.3 ms``."""
    if seconds is None:
        return MISSING
    for size, name in _DURATIONS:
        if seconds >= 0.9995 * size:
            return f"{digits(seconds / size)} {name}"
    return "0 s" if seconds == 0 else f"{digits(seconds / 1e-9)} ns"


def digits(value: float | None, count: int = 3) -> str:
    """Return a number in ``count`` significant digits, never with an exponent, never fewer than its whole part."""
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, count - 1 - math.floor(math.log10(abs(value) * (1 + 0.5 * 10**-count))))
    return f"{value:,.{decimals}f}"


def ratio(value: float | None) -> str:
    """Return a speed-up: ``3.42 ×``."""
    return MISSING if value is None else f"{value:,.2f} ×"


def coefficient(value: float | None) -> str:
    """Return a coefficient, as of correlation: ``0.93``."""
    return MISSING if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    """Return a share of one: ``12.3 %``."""
    return MISSING if share is None else f"{100 * share:.1f} %"


def size(nbytes: float | None) -> str:
    """Return a number of bytes: ``1.5 MiB``."""
    if nbytes is None:
        return MISSING
    for step, name in _SIZES:
        if nbytes >= step:
            return f"{digits(nbytes / step)} {name}"
    return "0 B"


def error(value: float | None) -> str:
    """Return a numeric error: ``1.2e-06``."""
    return MISSING if value is None else f"{value:.1e}"
