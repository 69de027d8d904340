"""The fidelity report as one HTML page: each schedule's time here against its time there."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from ...support.errors import WgtuneError
from ...support.formatting import coefficient, duration
from ..fidelity import FidelityReport
from .charts import breakable, column_heads

_SIDE = 1000


def write_fidelity_page(path: Path, report: FidelityReport) -> None:
    """Writes the page to ``path``. Raises WgtuneError where the file cannot be written."""
    try:
        path.write_text(fidelity_page(report), encoding="utf-8")
    except OSError as failure:
        raise WgtuneError(f"{path} cannot be written: {failure.strerror}", "name a file in a folder of yours") from None


def fidelity_page(report: FidelityReport) -> str:
    """The page's text; it loads nothing, from nowhere."""
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    title = f"{report.there} against {report.here}"
    words = "".join(f"<p>{escape(line)}</p>" for line in report.sentences())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)} · wgtune</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n<h1>{escape(title)}</h1>{words}\n{_picture(report)}{_table(report)}</main></body></html>\n"
    )


def _picture(report: FidelityReport) -> str:
    """Both axes logarithmic and alike, so that a constant ratio is a line beside the diagonal."""
    logs = [math.log(seconds) for _, *both in report.points for seconds in both]
    low, high = min(logs) - 0.2, max(logs) + 0.2

    def place(seconds: float) -> float:
        return _SIDE * (math.log(seconds) - low) / (high - low)

    dots = "".join(
        f'<circle cx="{place(here):.1f}" cy="{_SIDE - place(there):.1f}" r="9" fill="var(--best)">'
        f"<title>{escape(name)}: {escape(duration(here))} here, {escape(duration(there))} there</title></circle>"
        for name, here, there in report.points
    )
    return (
        '<h2>Schedule by schedule</h2><p class="soft">A dot is a schedule: to the right its time on '
        f"{escape(report.here)}, upwards on {escape(report.there)}, both logarithmic. On the line they are equal; dots "
        "that rise from left to right keep their order.</p>"
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="times of {len(report.points)} schedules" '
        'style="width:100%;max-width:640px;background:var(--card);border-radius:8px">'
        f'<path d="M0,{_SIDE}L{_SIDE},0" stroke="var(--baseline)" stroke-width="4" fill="none"/>{dots}</svg>\n'
    )


def _table(report: FidelityReport) -> str:
    heads = ["kernels of", "kernels", "schedules", "time there", "spread", "tau", "clear pairs kept", "best kept"]
    body = "".join(
        f'<tr><td class="left">{breakable(row.name)}</td><td>{row.kernels}</td><td>{row.schedules}</td>'
        f"<td>{row.ratio:.2f} ×</td><td>{coefficient(row.spread)}</td><td>{coefficient(row.tau)}</td>"
        f"<td>{row.kept} of {row.clear}</td><td>{row.best_kept} of {row.ranked}</td></tr>\n"
        for row in [*report.rows, report.overall]
    )
    head = column_heads(heads)
    return (
        '<h2>By kernel</h2><p class="soft">The time there is the geometric mean of the ratios, the spread their '
        "geometric standard deviation, tau Kendall's, within each kernel.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'
    )
