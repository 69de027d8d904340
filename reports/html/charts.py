"""Geometry of the pages' pictures, which the templates draw as HTML and SVG: a page needs no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...support.formatting import duration, ratio
from .tuning_curve import TuningCurvePoint

_WIDEST = 70
"""Width of the longest bar in per cent of the room; its number stands in the rest."""


@dataclass(frozen=True)
class Timing:
    """A name with its seconds before and after; ``note`` is small print."""

    name: str
    note: str
    baseline_s: float
    best_s: float


@dataclass(frozen=True)
class Bar:
    """A timing as two bars: widths in per cent, and what is written beside them."""

    name: str
    note: str
    baseline_width: float
    baseline: str
    best_width: float
    best: str


@dataclass(frozen=True)
class Dot:
    """A point in a picture of 1000 × 1000, from the upper left; ``text`` appears under the pointer."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Tick:
    """A line across a curve's picture: its height in per cent, and what it stands for."""

    height: float
    text: str


@dataclass(frozen=True)
class Curve:
    """The image's time over the number of trials, as an SVG path in 1000 × 1000.

    ``start_height`` is that of the first time in per cent, ``words`` say the same in text, ``end`` is written at the
    end of the axis.
    """

    path: str
    ticks: list[Tick]
    start_height: float
    words: str
    end: str


def bars(rows: Sequence[Timing]) -> list[Bar]:
    """Return two bars for each name, all on one scale."""
    longest = max((max(row.baseline_s, row.best_s) for row in rows), default=0.0) or 1.0
    return [
        Bar(
            row.name,
            row.note,
            _WIDEST * row.baseline_s / longest,
            duration(row.baseline_s),
            _WIDEST * row.best_s / longest,
            f"{duration(row.best_s)} · {ratio(row.baseline_s / row.best_s) if row.best_s else ''}",
        )
        for row in rows
    ]


def curve(points: Sequence[TuningCurvePoint]) -> Curve | None:
    """Return the curve through ``points``, with an axis from zero; None with fewer than two points."""
    if len(points) < 2:
        return None
    first, last = points[0], points[-1]
    top = max(point.image_s for point in points) * 1.05 or 1.0
    trials = last.trials or 1
    path = [f"M0,{_y(first.image_s, top)}"]
    for point in points[1:]:
        path.append(f"H{1000 * point.trials / trials:.1f}V{_y(point.image_s, top)}")
    return Curve(
        "".join(path),
        [Tick(100 * value / top, duration(value)) for value in _ticks(top)],
        100 * first.image_s / top,
        f"from {duration(first.image_s)} to {duration(last.image_s)} in {last.trials:,} trials",
        f"{last.trials:,} trials, {_minutes(last.elapsed_s)} of tuning",
    )


def _y(seconds: float, top: float) -> str:
    return f"{1000 * (1 - seconds / top):.1f}"


def _ticks(top: float) -> list[float]:
    """Return about four round values from 0 below ``top``."""
    step = 10 ** math.floor(math.log10(top / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * 5 >= top)
    return [step * i for i in range(int(top / step) + 1)]


def _minutes(seconds: float) -> str:
    return duration(seconds) if seconds < 90 else f"{seconds / 60:,.0f} min"
