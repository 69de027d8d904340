"""HTML page with latency and coverage of a model on a device, in one self-contained file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...database.reader import Reader
from ...support.enums import Runtime
from ...support.formatting import MISSING, column_unit, digits, duration, error, percent, ratio
from ..coverage import Coverage, CoverageReport, CoverageRow, coverage
from ..latency import LatencyReport, LatencyRow, latency
from ..launch_counts import model_launches
from ..provenance import SOFTWARE_WARNING, Provenance
from .charts import Bar, Timing, bars, curve
from .templating import asset, rendered, write_text
from .tuning_curve import TuningCurvePoint, tuning_curve

_DRAWN = 20
"""Kernels with bars of their own; the rest, together a small part of the time, share one."""

_COLOURS = {
    Coverage.IMPROVED: "good",
    Coverage.BASELINE_WON: "good",
    Coverage.MEASURED: "warn",
    Coverage.STALE: "bad",
    Coverage.FAILED: "bad",
    Coverage.NEVER_MEASURED: "bad",
}


def write_page(
    path: Path, store: Reader, capture_key: str, device_key: str, steps: int, runtime: Runtime = Runtime.WGPU
) -> None:
    """Write the page to ``path``.

    Raises:
        UsageError: the database knows no such model or device.
        WgtuneError: the file cannot be written.
    """
    text = page(
        latency(store, capture_key, device_key, steps, runtime),
        coverage(store, capture_key, device_key, steps, runtime),
        tuning_curve(store, model_launches(store, capture_key, steps), device_key, runtime),
    )
    write_text(path, text)


def page(times: LatencyReport, covered: CoverageReport, points: Sequence[TuningCurvePoint]) -> str:
    """Return the page's text."""
    device = times.provenance.device
    columns = _columns(times)
    status = {row.workload_id: row for row in covered.rows}
    return rendered(
        "page.html.j2",
        title=f"{times.model.name} on {device.model or device.key}",
        subtitle=_subtitle(times),
        warning=SOFTWARE_WARNING if device.software else "",
        tiles=_tiles(times, covered),
        times=_times(times),
        curve=curve(points),
        coverage=_coverage(covered),
        columns=columns,
        rows=[[_cell(column, row, status[row.workload_id]) for column in columns] for row in times.rows],
        provenance=_provenance(times.provenance),
        script=asset("page.js"),
    )


def _subtitle(times: LatencyReport) -> list[str]:
    options = times.model.options
    words = [
        times.provenance.device.key,
        f"{times.steps} steps",
        f"{options['width']} × {options['height']} pixels" if options.get("width") and options.get("height") else "",
        "" if times.per_what == "image" else times.per_what,
        "" if options.get("guidance", True) else "no guidance",
        "" if options.get("weights", "f32") == "f32" else f"{options['weights']} weights",
        "" if options.get("compute", "f32") == "f32" else f"{options['compute']} between kernels",
        f"measured through {times.provenance.runtime.value}",
    ]
    return [word for word in words if word]


def _tiles(times: LatencyReport, covered: CoverageReport) -> list[tuple[str, str]]:
    image, known = times.image, times.image.best_s > 0
    least = "≥ " if image.missing else ""
    return [
        (least + duration(image.best_s) if known else MISSING, f"per {times.per_what}, tuned"),
        (least + duration(image.baseline_s) if known else MISSING, f"per {times.per_what}, untuned"),
        (ratio(image.speedup), "speed-up"),
        (f"{covered.count(Coverage.IMPROVED)} of {len(covered.rows)}", "kernels improved"),
        (
            f"{sum(row.tried for row in covered.rows):,}",
            f"trials, {sum(row.failures for row in covered.rows):,} failed",
        ),
    ]


def _times(times: LatencyReport) -> list[tuple[str, list[Bar]]]:
    """Return a heading and bars for the kernels and for the stages, where any was measured."""
    found = []
    if kernels := _kernels(times):
        found.append((f"Time per {times.per_what}, by kernel", bars(kernels)))
    stages = [
        Timing(total.name, "once" if total.runs == 1 else f"{total.runs} times", total.baseline_s, total.best_s)
        for total in times.stages
    ]
    if any(row.best_s for row in stages):
        found.append((f"Time per {times.per_what}, by stage", bars(stages)))
    return found


def _kernels(times: LatencyReport) -> list[Timing]:
    timed = [row for row in times.rows if row.image_s is not None]
    rows = [Timing(row.name, f"{row.launches:,} launches", _untuned(row), row.image_s or 0.0) for row in timed[:_DRAWN]]
    if rest := timed[_DRAWN:]:
        launches = sum(row.launches for row in rest)
        rows.append(
            Timing(
                f"{len(rest)} other kernels",
                f"{launches:,} launches",
                sum(_untuned(row) for row in rest),
                sum(row.image_s or 0.0 for row in rest),
            )
        )
    return rows


def _coverage(covered: CoverageReport) -> dict[str, Any]:
    present = [(status, covered.count(status)) for status in Coverage if covered.count(status)]
    return {
        "parts": [
            (_COLOURS[status], f"{status.value}: {count}", count / len(covered.rows)) for status, count in present
        ],
        "legend": [
            (_COLOURS[status], f"{count} {status.value}, {percent(covered.time_share(status))} of the known time")
            for status, count in present
        ],
        "sentences": covered.sentences(),
    }


@dataclass(frozen=True)
class _Column:
    """A column of the table: what a row's cell says, and the value that sorts it (None: always last)."""

    header: str
    text: Callable[[LatencyRow, CoverageRow], str]
    value: Callable[[LatencyRow, CoverageRow], float | str | None]
    left: bool = False

    @property
    def sorted(self) -> bool:
        """Whether the rows are in the order of this column at first."""
        return self.header.startswith("image")


@dataclass(frozen=True)
class _Cell:
    """A cell of the table; ``value`` sorts it, ``classes`` are its CSS classes."""

    text: str
    value: str | None
    classes: str
    left: bool


def _cell(column: _Column, row: LatencyRow, covered: CoverageRow) -> _Cell:
    value = column.value(row, covered)
    kinds = ["left"] if column.left else []
    if isinstance(value, Coverage):
        kinds.append(f"status-{_COLOURS[value]}")
        value = value.value
    text = column.text(row, covered)
    return _Cell(text, None if value is None else str(value), " ".join(kinds), column.left)


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


def _provenance(source: Provenance) -> list[tuple[str, str]]:
    device = source.device
    day = "%Y-%m-%d %H:%M UTC"
    dates = f"{source.first:{day}} to {source.last:{day}}" if source.first and source.last else MISSING
    return [
        ("Device", f"{device.key}{', software' if device.software else ''}"),
        ("Model", " ".join(word for word in (device.vendor, device.architecture, device.model) if word)),
        ("Driver", "; ".join(source.drivers) or MISSING),
        ("Measured through", source.runtime.value),
        ("Tier", ", ".join(source.tiers) or MISSING),
        ("Toolchain", "; ".join(source.toolchains) or MISSING),
        ("Records", f"{dates}, {source.sessions} sessions" if source.sessions != 1 else f"{dates}, 1 session"),
        ("Page made", f"{datetime.now(timezone.utc):{day}}"),
    ]


def _untuned(row: LatencyRow) -> float:
    return row.launches * (row.baseline_s if row.baseline_s is not None else row.best_s or 0.0)
