"""The stability report as one HTML page: each schedule's first time against its second."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ...support.errors import WgtuneError
from ...support.formatting import coefficient, column_unit, duration, percent
from ..provenance import SOFTWARE_WARNING
from ..stability import StabilityReport, StabilityRow
from .charts import breakable, column_heads

_ROOM = 0.05
"""Free space around the dots, as a part of what they span."""


def write_stability_page(path: Path, report: StabilityReport) -> None:
    """Writes the page to ``path``. Raises WgtuneError where the file cannot be written."""
    try:
        path.write_text(stability_page(report), encoding="utf-8")
    except OSError as failure:
        raise WgtuneError(f"{path} cannot be written: {failure.strerror}", "name a file in a folder of yours") from None


def stability_page(report: StabilityReport) -> str:
    """The page's text; it loads nothing, from nowhere."""
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    device = report.provenance.device
    title = f"Stability of {report.model} on {device.model or device.key}"
    warning = f'<p class="note">{escape(SOFTWARE_WARNING)}</p>' if device.software else ""
    words = "".join(f"<p>{escape(line)}</p>" for line in report.sentences())
    head = (
        f'<h1>{escape(title)}</h1><p class="soft">{escape(device.key)} · session {report.session.session_id}, '
        f"{report.session.started:%Y-%m-%d %H:%M} UTC · {escape(report.session.outcome.value)}</p>{warning}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)} · wgtune</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{head}{_tiles(report)}{words}\n{_pictures(report.rows)}{_table(report.rows)}"
        "</main></body></html>\n"
    )


def _tiles(report: StabilityReport) -> str:
    overall = report.overall
    tiles = [
        (coefficient(overall.tau), "Kendall's tau, all pairs"),
        (coefficient(overall.clear_tau), "beyond noise"),
        (f"{overall.kept:,} of {overall.clear:,}", "clear pairs kept their order"),
        (percent(report.change), "median change of a time"),
        (f"{sum(len(row.before_s) for row in report.rows):,}", "schedules measured again"),
    ]
    items = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{items}</div>\n'


def _pictures(rows: Sequence[StabilityRow]) -> str:
    drawn = "".join(
        f'<figure style="margin:0"><figcaption class="soft" style="font-size:12px">{breakable(row.name)}<br>'
        f"tau {coefficient(row.agreement.tau)}, {_range(row)}"
        f"</figcaption>{_scatter(row)}</figure>"
        for row in rows
    )
    return (
        "<h2>Then and now</h2>"
        '<p class="soft">A dot is a schedule: its first time to the right, its second upwards, both axes over the '
        "range given, so that what looks far apart may be near. On the line it took as long as before; dots that rise "
        "from left to right kept their order.</p>"
        '<div style="display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:18px">'
        f"{drawn}</div>\n"
    )


def _scatter(row: StabilityRow) -> str:
    low, high = min(*row.before_s, *row.after_s), max(*row.before_s, *row.after_s)
    span = (high - low) or high

    def place(seconds: float) -> float:
        return 1000 * (_ROOM + (1 - 2 * _ROOM) * (seconds - low) / span)

    dots = "".join(
        f'<circle cx="{place(before):.1f}" cy="{1000 - place(after):.1f}" r="18" fill="var(--best)">'
        f"<title>{escape(duration(before))}, then {escape(duration(after))}</title></circle>"
        for before, after in zip(row.before_s, row.after_s, strict=True)
    )
    words = f"first against second times of {len(row.before_s)} schedules, tau {coefficient(row.agreement.tau)}"
    return (
        f'<svg viewBox="-20 -20 1040 1040" role="img" aria-label="{escape(words)}" '
        'style="width:100%;background:var(--card);border-radius:8px">'
        '<path d="M0,1000L1000,0" stroke="var(--baseline)" stroke-width="6" fill="none"/>'
        f"{dots}</svg>"
    )


def _range(row: StabilityRow) -> str:
    times = (*row.before_s, *row.after_s)
    return f"{duration(min(times))} to {duration(max(times))}"


def _table(rows: Sequence[StabilityRow]) -> str:
    unit = column_unit([seconds for row in rows for seconds in (*row.before_s, *row.after_s)])
    heads = [
        *("kernel", "schedules", f"best before {unit.name}", f"now {unit.name}", "tau"),
        *("clear pairs kept", "median change", "largest change", "±"),
    ]
    body = "".join(
        f'<tr><td class="left">{breakable(row.name)}</td><td>{len(row.before_s)}</td>'
        f"<td>{unit.format(row.before_s[0])}</td><td>{unit.format(row.after_s[0])}</td>"
        f"<td>{coefficient(row.agreement.tau)}</td><td>{row.agreement.kept} of {row.agreement.clear}</td>"
        f"<td>{percent(row.change)}</td><td>{percent(row.largest_change)}</td><td>{percent(row.error)}</td></tr>\n"
        for row in rows
    )
    head = column_heads(heads)
    return (
        '<h2>All kernels</h2><p class="soft">± is how far the ends of a median\'s 95 % confidence interval lie from it.'
        f'</p><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n'
    )
