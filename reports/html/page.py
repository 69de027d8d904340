"""One HTML page with everything about a model on a device: it needs no network and no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any

from ...database.reader import Reader
from ...support.enums import Runtime
from ...support.errors import WgtuneError
from ...support.formatting import MISSING, column_unit, digits, duration, error, percent, ratio
from ..coverage import Coverage, CoverageReport, CoverageRow, coverage
from ..latency import LatencyReport, LatencyRow, latency
from ..launch_counts import model_launches
from ..provenance import SOFTWARE_WARNING, Provenance
from .charts import Bar, bars, breakable, curve, legend, stack
from .tuning_curve import ProgressPoint, progress

_DRAWN = 20
"""Kernels with bars of their own; the rest, together a small part of the time, share one."""

_COLOURS = {
    Coverage.TUNED: "good",
    Coverage.BASELINE_ONLY: "warn",
    Coverage.STALE: "bad",
    Coverage.FAILED: "bad",
    Coverage.MISSING: "bad",
}

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The page loads nothing, from nowhere, and the browser holds it to that."""


def write_page(
    path: Path, store: Reader, capture_key: str, device_key: str, steps: int, runtime: Runtime = Runtime.WGPU
) -> None:
    """Writes the page to ``path``.

    Raises:
        UsageError: the database knows no such model or device.
        WgtuneError: the file cannot be written.
    """
    text = page(
        latency(store, capture_key, device_key, steps, runtime),
        coverage(store, capture_key, device_key, steps, runtime),
        progress(store, model_launches(store, capture_key, steps), device_key, runtime),
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as failure:
        raise WgtuneError(f"{path} cannot be written: {failure.strerror}", "name a file in a folder of yours") from None


def page(times: LatencyReport, covered: CoverageReport, points: Sequence[ProgressPoint]) -> str:
    """The page's text."""
    style, script = (Path(__file__).with_name(name).read_text("utf-8") for name in ("page.css", "page.js"))
    title = f"{times.model.name} on {times.provenance.device.model or times.provenance.device.key}"
    sections = [
        _head(title, times),
        _tiles(times, covered),
        _kernels(times),
        _stages(times),
        _progress(points),
        _covered(covered),
        _table(times, covered),
        _provenance(times.provenance),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)} · wgtune</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{''.join(sections)}</main>\n<script>\n{script}</script></body></html>\n"
    )


def _head(title: str, times: LatencyReport) -> str:
    options = times.model.options
    words = [
        times.provenance.device.key,
        f"{times.steps} steps",
        f"{options['width']} × {options['height']} pixels" if options.get("width") and options.get("height") else "",
        "" if times.per_what == "image" else times.per_what,
        "" if options.get("guidance", True) else "no guidance",
        f"measured through {times.provenance.runtime.value}",
    ]
    warning = f'<p class="note">{escape(SOFTWARE_WARNING)}</p>' if times.provenance.device.software else ""
    line = " · ".join(escape(word) for word in words if word)
    return f'<h1>{escape(title)}</h1><p class="soft">{line}</p>{warning}\n'


def _tiles(times: LatencyReport, covered: CoverageReport) -> str:
    image, known = times.image, times.image.best_s > 0
    least = "≥ " if image.missing else ""
    tiles = [
        (least + duration(image.best_s) if known else MISSING, f"per {times.per_what}, tuned"),
        (least + duration(image.baseline_s) if known else MISSING, f"per {times.per_what}, untuned"),
        (ratio(image.speedup), "speed-up"),
        (f"{covered.count(Coverage.TUNED)} of {len(covered.rows)}", "kernels tuned"),
        (
            f"{sum(row.tried for row in covered.rows):,}",
            f"trials, {sum(row.failures for row in covered.rows):,} failed",
        ),
    ]
    items = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{items}</div>\n'


def _kernels(times: LatencyReport) -> str:
    timed = [row for row in times.rows if row.image_s is not None]
    if not timed:
        return ""
    rows = [Bar(row.name, f"{row.launches:,} launches", _untuned(row), row.image_s or 0.0) for row in timed[:_DRAWN]]
    if rest := timed[_DRAWN:]:
        launches = sum(row.launches for row in rest)
        rows.append(
            Bar(
                f"{len(rest)} other kernels",
                f"{launches:,} launches",
                sum(_untuned(row) for row in rest),
                sum(row.image_s or 0.0 for row in rest),
            )
        )
    return f"<h2>Time per {escape(times.per_what)}, by kernel</h2>{_LEGEND}{bars(rows)}\n"


def _stages(times: LatencyReport) -> str:
    rows = [
        Bar(total.name, "once" if total.runs == 1 else f"{total.runs} times", total.baseline_s, total.best_s)
        for total in times.stages
    ]
    if not any(row.best_s for row in rows):
        return ""
    return f"<h2>Time per {escape(times.per_what)}, by stage</h2>{_LEGEND}{bars(rows)}\n"


def _progress(points: Sequence[ProgressPoint]) -> str:
    drawn = curve(points)
    return drawn and f'<h2>While tuning</h2><p class="soft">Sum over the kernels measured so far.</p>{drawn}\n'


def _covered(covered: CoverageReport) -> str:
    present = [status for status in Coverage if covered.count(status)]
    parts = [
        (_COLOURS[status], f"{status.value}: {covered.count(status)}", covered.count(status) / len(covered.rows))
        for status in present
    ]
    entries = [
        (
            _COLOURS[status],
            f"{covered.count(status)} {status.value}, {percent(covered.time_share(status))} of the known time",
        )
        for status in present
    ]
    sentences = "".join(f"<p>{escape(line)}</p>" for line in covered.sentences())
    return f"<h2>Coverage</h2>{stack(parts)}{legend(entries)}{sentences}\n"


@dataclass(frozen=True)
class _Column:
    """A column of the table: what a row's cell says, and the value that sorts it (None: always last)."""

    header: str
    text: Callable[[LatencyRow, CoverageRow], str]
    value: Callable[[LatencyRow, CoverageRow], float | str | None]
    left: bool = False


def _table(times: LatencyReport, covered: CoverageReport) -> str:
    if not times.rows:
        return ""
    columns = _columns(times)
    status = {row.workload_id: row for row in covered.rows}
    head = "".join(
        f'<th scope="col"{" class=left" if column.left else ""}'
        f"{' aria-sort=descending' if column.header.startswith('image') else ''}>"
        f'<button type="button">{escape(column.header)}</button></th>'
        for column in columns
    )
    body = "".join(f"<tr>{_cells(columns, row, status[row.workload_id])}</tr>\n" for row in times.rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    return f'<h2>All kernels</h2><p class="soft">{_EXPLAINED}</p><div class="scroll">{table}</div>\n'


def _cells(columns: Sequence[_Column], row: LatencyRow, covered: CoverageRow) -> str:
    cells = []
    for column in columns:
        value = column.value(row, covered)
        kinds = ["left"] if column.left else []
        if isinstance(value, Coverage):
            kinds.append(f"status-{_COLOURS[value]}")
            value = value.value
        data = "" if value is None else f' data-value="{escape(str(value))}"'
        attribute = f' class="{" ".join(kinds)}"' if kinds else ""
        text = column.text(row, covered)
        cells.append(f"<td{attribute}{data}>{breakable(text) if column.left else escape(text)}</td>")
    return "".join(cells)


def _columns(times: LatencyReport) -> list[_Column]:
    once = column_unit([*(row.baseline_s for row in times.rows), *(row.best_s for row in times.rows)])
    image = column_unit(row.image_s for row in times.rows)
    whole = times.image.best_s or 1.0

    def tolerance(row: LatencyRow) -> str:
        return MISSING if row.atol is None or row.rtol is None else f"{row.atol:.0e} + {row.rtol:.0e}·|x|"

    def share(row: LatencyRow) -> float | None:
        return None if row.image_s is None else row.image_s / whole

    return [
        _Column("kernel", lambda row, _: row.name, lambda row, _: row.name, left=True),
        _Column("stage", lambda row, _: ", ".join(row.stages), lambda row, _: ",".join(row.stages), left=True),
        _Column("status", lambda _, covered: covered.status.value, lambda _, covered: covered.status, left=True),
        _Column("launches", lambda row, _: f"{row.launches:,}", lambda row, _: row.launches),
        _Column(f"baseline {once.name}", lambda row, _: once.format(row.baseline_s), lambda row, _: row.baseline_s),
        _Column(f"best {once.name}", lambda row, _: once.format(row.best_s), lambda row, _: row.best_s),
        _Column("speed-up", lambda row, _: ratio(row.speedup), lambda row, _: row.speedup),
        _Column(f"image {image.name}", lambda row, _: image.format(row.image_s), lambda row, _: row.image_s),
        _Column("share", lambda row, _: percent(share(row)), lambda row, _: share(row)),
        _Column("GFLOP/s", lambda row, _: digits(row.gflops), lambda row, _: row.gflops),
        _Column("GB/s", lambda row, _: digits(row.gbytes), lambda row, _: row.gbytes),
        _Column("spread", lambda row, _: percent(row.spread), lambda row, _: row.spread),
        _Column("max error", lambda row, _: error(row.max_error), lambda row, _: row.max_error),
        _Column("tolerance", lambda row, _: tolerance(row), lambda row, _: row.atol),
        _Column("trials", lambda row, _: f"{row.trials:,}", lambda row, _: row.trials),
        _Column("failed", lambda row, _: f"{row.failures:,}", lambda row, _: row.failures),
    ]


def _provenance(source: Provenance) -> str:
    device = source.device
    day = "%Y-%m-%d %H:%M UTC"
    dates = f"{source.first:{day}} to {source.last:{day}}" if source.first and source.last else MISSING
    entries: list[tuple[str, Any]] = [
        ("Device", f"{device.key}{', software' if device.software else ''}"),
        ("Model", " ".join(word for word in (device.vendor, device.architecture, device.model) if word)),
        ("Driver", "; ".join(source.drivers) or MISSING),
        ("Measured through", source.runtime.value),
        ("Tier", ", ".join(source.tiers) or MISSING),
        ("Toolchain", "; ".join(source.toolchains) or MISSING),
        ("Records", f"{dates}, {source.sessions} sessions" if source.sessions != 1 else f"{dates}, 1 session"),
        ("Page made", f"{datetime.now(timezone.utc):{day}}"),
    ]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in entries)
    return f"<h2>Where this comes from</h2><dl>{items}</dl>\n"


def _untuned(row: LatencyRow) -> float:
    return row.launches * (row.baseline_s if row.baseline_s is not None else row.best_s or 0.0)


_LEGEND = legend([("baseline", "untuned baseline"), ("best", "best verified")])

_EXPLAINED = (
    "A click on a heading sorts. Baseline and best are medians of one launch; image is all launches at the best; spread"
    " is the interquartile range of its samples over their median; an element passes when its error is within the "
    "tolerance, |x| being what it should be."
)
