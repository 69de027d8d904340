"""The stability report as one HTML page: each schedule's first time against its second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...support.formatting import coefficient, column_unit, duration, percent
from ..provenance import SOFTWARE_WARNING
from ..stability import StabilityReport, StabilityRow
from .charts import Dot
from .templating import rendered, write_text

_MARGIN = 0.05
"""Free space around the dots, as a part of what they span."""


@dataclass(frozen=True)
class _Plot:
    """The first and second times of one kernel's schedules; ``words`` say the same in text."""

    name: str
    caption: str
    words: str
    dots: list[Dot]


def write_stability_page(path: Path, report: StabilityReport) -> None:
    """Write the page to ``path``. Raises WgtuneError where the file cannot be written."""
    write_text(path, stability_page(report))


def stability_page(report: StabilityReport) -> str:
    """Return the page's text."""
    device, session = report.provenance.device, report.session
    unit = column_unit([seconds for row in report.rows for seconds in (*row.before_s, *row.after_s)])
    return rendered(
        "stability.html.j2",
        title=f"Stability of {report.model} on {device.model or device.key}",
        subtitle=[
            device.key,
            f"session {session.session_id}, {session.started:%Y-%m-%d %H:%M} UTC",
            session.outcome.value,
        ],
        warning=SOFTWARE_WARNING if device.software else "",
        tiles=_tiles(report),
        sentences=report.sentences(),
        plots=[_plot(row) for row in report.rows],
        heads=[
            *("kernel", "schedules", f"best before {unit.name}", f"now {unit.name}", "tau"),
            *("clear pairs kept", "median change", "largest change", "±"),
        ],
        rows=[
            [
                *(row.name, len(row.before_s), unit.format(row.before_s[0]), unit.format(row.after_s[0])),
                *(coefficient(row.agreement.tau), f"{row.agreement.kept} of {row.agreement.clear}"),
                *(percent(row.change), percent(row.largest_change), percent(row.error)),
            ]
            for row in report.rows
        ],
    )


def _tiles(report: StabilityReport) -> Sequence[tuple[str, str]]:
    overall = report.overall
    return [
        (coefficient(overall.tau), "Kendall's tau, all pairs"),
        (coefficient(overall.clear_tau), "beyond noise"),
        (f"{overall.kept:,} of {overall.clear:,}", "clear pairs kept their order"),
        (percent(report.change), "median change of a time"),
        (f"{sum(len(row.before_s) for row in report.rows):,}", "schedules measured again"),
    ]


def _plot(row: StabilityRow) -> _Plot:
    low, high = min(*row.before_s, *row.after_s), max(*row.before_s, *row.after_s)
    span = (high - low) or high

    def place(seconds: float) -> float:
        return 1000 * (_MARGIN + (1 - 2 * _MARGIN) * (seconds - low) / span)

    tau = coefficient(row.agreement.tau)
    return _Plot(
        name=row.name,
        caption=f"tau {tau}, {duration(low)} to {duration(high)}",
        words=f"first against second times of {len(row.before_s)} schedules, tau {tau}",
        dots=[
            Dot(place(before), 1000 - place(after), f"{duration(before)}, then {duration(after)}")
            for before, after in zip(row.before_s, row.after_s, strict=True)
        ],
    )
