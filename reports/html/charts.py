"""The page's pictures, as HTML and SVG made by hand: a plotting library would weigh a hundred times the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ...support.formatting import duration, ratio
from .tuning_curve import ProgressPoint

_WIDEST = 70
"""Per cent of the room that the longest bar takes; its number stands in the rest."""


@dataclass(frozen=True)
class Bar:
    """One name with its seconds before and after; ``note`` is small print."""

    name: str
    note: str
    baseline_s: float
    best_s: float


def bars(rows: Sequence[Bar]) -> str:
    """Two bars for each name, all on one scale."""
    longest = max((max(row.baseline_s, row.best_s) for row in rows), default=0.0) or 1.0
    parts = []
    for row in rows:
        gain = ratio(row.baseline_s / row.best_s) if row.best_s else ""
        parts.append(
            f'<div class="name">{breakable(row.name)}<small>{escape(row.note)}</small></div><div class="pair">'
            + _bar("baseline", row.baseline_s, longest, duration(row.baseline_s))
            + _bar("best", row.best_s, longest, f"{duration(row.best_s)} · {gain}")
            + "</div>"
        )
    return f'<div class="bars">{"".join(parts)}</div>'


def _bar(kind: str, seconds: float, longest: float, text: str) -> str:
    width = _WIDEST * seconds / longest
    value = f'<span class="value">{escape(text)}</span>'
    return f'<div class="bar"><i class="{kind}" style="width:{width:.2f}%"></i>{value}</div>'


def column_heads(names: Sequence[str]) -> str:
    """The heads of a table's columns as HTML: the first one's cells are words, the others' numbers."""
    return "".join(
        f'<th scope="col"{"" if number else " class=left"} style="padding:8px 10px">{escape(name)}</th>'
        for number, name in enumerate(names)
    )


def breakable(name: str) -> str:
    """A kernel's name as HTML that may wrap between its words."""
    return escape(name).replace("_", "_<wbr>")


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """What the colours mean: pairs of a colour's class and its words."""
    items = "".join(f'<span><i class="{kind}"></i>{escape(words)}</span>' for kind, words in entries)
    return f'<div class="key">{items}</div>'


def stack(parts: Sequence[tuple[str, str, float]]) -> str:
    """One bar of parts of a whole: each a colour's class, its words, its share of one."""
    items = "".join(
        f'<i class="{kind}" style="width:{100 * share:.2f}%" title="{escape(words)}"></i>'
        for kind, words, share in parts
        if share > 0
    )
    return (
        f'<div class="stack" role="img" aria-label="{escape("; ".join(words for _, words, _ in parts))}">{items}</div>'
    )


def curve(points: Sequence[ProgressPoint]) -> str:
    """The image's time over the number of trials, from nought, as steps; a dashed line marks where it began."""
    if len(points) < 2:
        return ""
    last = points[-1]
    top = max(point.image_s for point in points) * 1.05 or 1.0
    trials = last.trials or 1
    path = [f"M0,{_y(points[0].image_s, top)}"]
    for point in points[1:]:
        path.append(f"H{1000 * point.trials / trials:.1f}V{_y(point.image_s, top)}")
    ticks = "".join(
        f'<div class="tick" style="bottom:{100 * value / top:.2f}%"><span>{escape(duration(value))}</span></div>'
        for value in _ticks(top)
    )
    words = f"from {duration(points[0].image_s)} to {duration(last.image_s)} in {last.trials:,} trials"
    return (
        f'<div class="plot">{ticks}'
        f'<div class="start" style="bottom:{100 * points[0].image_s / top:.2f}%"></div>'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{escape(words)}">'
        f'<path d="{"".join(path)}"/></svg>'
        f'<span class="foot" style="left:0">0 trials</span>'
        f'<span class="foot" style="right:0">{last.trials:,} trials, {_minutes(last.elapsed_s)} of tuning</span></div>'
    )


def _y(seconds: float, top: float) -> str:
    return f"{1000 * (1 - seconds / top):.1f}"


def _ticks(top: float) -> list[float]:
    """About four round values from 0 below ``top``."""
    step = 10 ** math.floor(math.log10(top / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * 5 >= top)
    return [step * i for i in range(int(top / step) + 1)]


def _minutes(seconds: float) -> str:
    return duration(seconds) if seconds < 90 else f"{seconds / 60:,.0f} min"
