"""The fidelity report as one HTML page: each schedule's time on one device against its time on the other."""

from __future__ import annotations

import math
from pathlib import Path

from ...support.formatting import coefficient, duration
from ..fidelity import FidelityReport
from .charts import Dot
from .templating import rendered, write_text

_SIDE = 1000
_HEADS = ["class", "kernels", "schedules", "time there", "spread", "tau", "clear pairs kept", "best kept"]


def write_fidelity_page(path: Path, report: FidelityReport) -> None:
    """Write the page to ``path``. Raises WgtuneError where the file cannot be written."""
    write_text(path, fidelity_page(report))


def fidelity_page(report: FidelityReport) -> str:
    """Return the page's text."""
    return rendered(
        "fidelity.html.j2",
        title=f"{report.there} against {report.here}",
        report=report,
        dots=_dots(report),
        heads=_HEADS,
        rows=[
            [
                *(row.name, row.kernels, row.schedules, f"{row.ratio:.2f} ×", coefficient(row.spread)),
                *(coefficient(row.tau), f"{row.kept} of {row.clear}", f"{row.best_kept} of {row.ranked}"),
            ]
            for row in [*report.rows, report.overall]
        ],
    )


def _dots(report: FidelityReport) -> list[Dot]:
    """Return a dot for each schedule; both axes are logarithmic and alike, so that a constant ratio is a line."""
    logs = [math.log(seconds) for _, *both in report.points for seconds in both]
    low, high = min(logs) - 0.2, max(logs) + 0.2

    def place(seconds: float) -> float:
        return _SIDE * (math.log(seconds) - low) / (high - low)

    return [
        Dot(place(here), _SIDE - place(there), f"{name}: {duration(here)} here, {duration(there)} there")
        for name, here, there in report.points
    ]
