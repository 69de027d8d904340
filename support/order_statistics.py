"""Confidence intervals of medians without assumptions on the distribution: latencies are skewed, not normal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An interval that holds the true median with at least the confidence asked for; the samples' unit."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether a value lies in both."""
        return self.low <= other.high and other.low <= self.high


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Return the confidence interval of the median by order statistics; None where there are too few samples for one.

    Of n independent samples the number below the true median is binomial (n, ½), so it lies between the k-th smallest
    and the k-th largest with probability ``1 − 2·P(B < k)``, for any continuous distribution (H. A. David and H. N.
    Nagaraja, Order Statistics, 3rd ed. 2003, section 7.1). With 95 % it takes six samples.
    """
    k = _rank(len(samples), confidence)
    if k == 0:
        return None
    ordered = sorted(samples)
    return Interval(ordered[k - 1], ordered[-k])


def median_error(samples: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Return the distance from the median to the interval's farther end, relative to it; infinity without interval."""
    interval = median_interval(samples, confidence)
    middle = statistics.median(samples) if samples else 0.0
    if interval is None or middle <= 0:
        return math.inf
    return max(interval.high - middle, middle - interval.low) / middle


@cache
def _rank(count: int, confidence: float) -> int:
    """Return the largest k whose interval holds with ``confidence``; 0 where even the whole range does not."""
    below, k = 0.0, 0
    while k < count // 2:
        below += math.comb(count, k) * 0.5**count
        if 1 - 2 * below < confidence:
            break
        k += 1
    return k
