"""Latency report: time of each kernel of a model on a device, untuned and tuned, and sums per stage and image."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ..database.reader import Reader
from ..database.schema.records import ModelInfo, Record, TrialKind
from ..support.enums import Runtime, TrialState
from ..support.formatting import MISSING, column_unit, digits, duration, error, percent, ratio
from ..support.serialization import plain
from .launch_counts import KernelLaunches, ModelLaunches, model_launches
from .provenance import SOFTWARE_WARNING, Provenance, provenance
from .tables import Column, print_left_out, print_rows


@dataclass(frozen=True)
class LatencyRow:
    """One kernel; durations in seconds, None where nothing verified is known.

    ``launches`` is per batch of images. ``baseline_s`` and ``best_s`` are medians of one launch, ``spread`` the
    interquartile range of the best record's samples over their median (None for fewer than 4). ``gflops`` (10⁹
    operations a second) and ``gbytes`` (10⁹ bytes a second, each parameter counted once) are of the best.
    ``max_error`` is the best record's, to be read against ``atol + rtol · |expected|``.
    """

    name: str
    workload_id: str
    stages: dict[str, int]
    launches: int
    baseline_s: float | None
    best_s: float | None
    best_kind: TrialKind | None
    verified: bool
    samples: int
    spread: float | None
    timer: str
    gflops: float | None
    gbytes: float | None
    max_error: float | None
    rtol: float | None
    atol: float | None
    trials: int
    failures: int

    @property
    def speedup(self) -> float | None:
        """Baseline over best."""
        return self.baseline_s / self.best_s if self.baseline_s is not None and self.best_s else None

    @property
    def image_s(self) -> float | None:
        """All launches of one batch of images at the best."""
        return None if self.best_s is None else self.launches * self.best_s


@dataclass(frozen=True)
class Total:
    """A sum of launches × latency over the kernels that have a time; ``missing`` counts those that have none.

    A kernel without a verified baseline counts with its best time in both sums.
    """

    name: str
    runs: int
    baseline_s: float
    best_s: float
    missing: int

    @property
    def speedup(self) -> float | None:
        """Baseline over best."""
        return self.baseline_s / self.best_s if self.best_s else None


@dataclass(frozen=True)
class LatencyReport:
    """Latencies of one model on one device; rows longest first, those without a time last."""

    model: ModelInfo
    steps: int
    per_what: str
    provenance: Provenance
    rows: list[LatencyRow]
    stages: list[Total]
    image: Total

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: seconds, ratios, 10⁹ operations and bytes a second."""
        result: dict[str, Any] = plain(
            {
                "report": "latency",
                "model": self.model,
                "steps": self.steps,
                "per": self.per_what,
                "provenance": self.provenance,
                "image": _total_json(self.image),
                "stages": [_total_json(total) for total in self.stages],
                "kernels": [{**plain(row), "speedup": row.speedup, "image_s": row.image_s} for row in self.rows],
            }
        )
        return result

    def sentences(self) -> list[str]:
        """Return sentences on what is missing, and the command to run next."""
        device = self.provenance.device.key
        lines = []
        if self.image.missing:
            lines.append(
                f"{self.image.missing} of {len(self.rows)} kernels have no verified time on {device}: "
                "the totals lack them."
            )
        untuned = [row.name for row in self.rows if row.best_kind is TrialKind.BASELINE]
        if untuned:
            best = ", ".join(untuned[:3]) + (", …" if len(untuned) > 3 else "")
            lines.append(
                f"{len(untuned)} of {len(self.rows)} kernels stand at their baseline, "
                f"not searched yet or nothing beat it: {best}."
            )
        if unbased := sum(row.baseline_s is None and row.best_s is not None for row in self.rows):
            lines.append(f"{unbased} kernels have no verified baseline: both totals count their best time.")
        if self.image.missing or untuned:
            lines.append(f"To go on: wgtune tune --device {device}, with the --model as before")
        return lines

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the report: kernels (only the first ``limit``), totals, what is missing."""
        device = self.provenance.device
        console.print(
            Text(f"Latency of {self.model.name} on {device.key} ({device.model}), {self.steps} steps", style="bold"),
            soft_wrap=True,
        )
        rows = [
            {
                "name": row.name,
                "stages": "+".join(row.stages),
                "launches": row.launches,
                "baseline": row.baseline_s,
                "best": row.best_s,
                "speedup": row.speedup,
                "image": row.image_s,
                "share": row.image_s / self.image.best_s if row.image_s is not None and self.image.best_s else None,
                "gflops": row.gflops,
                "gbytes": row.gbytes,
                "spread": row.spread,
                "max_error": row.max_error,
                "tolerance": row,
                "verified": row.verified or None,
                "trials": row.trials,
                "failures": row.failures,
            }
            for row in self.rows[:limit]
        ]
        print_rows(rows, _columns(self.rows), json=False, console=console)
        print_left_out(len(self.rows), len(rows), console)
        console.print()
        totals = [*self.stages, self.image]
        print_rows(
            [{**_total_json(total), "share": total.best_s / (self.image.best_s or 1.0)} for total in totals],
            _total_columns(totals),
            json=False,
            console=console,
        )
        console.print()
        for line in self.sentences():
            console.print(Text(line), soft_wrap=not console.is_terminal)
        if device.software:
            console.print(Text(SOFTWARE_WARNING, style="yellow"), soft_wrap=not console.is_terminal)


def latency(
    store: Reader, capture_key: str, device_key: str, steps: int, runtime: Runtime = Runtime.WGPU
) -> LatencyReport:
    """Return the latencies of a model on a device at ``steps`` model calls per image.

    Raises:
        UsageError: the database knows no such model or device.
    """
    launches = model_launches(store, capture_key, steps)
    ids = launches.workload_ids
    best = store.best(device_key, ids, runtime)
    baselines = store.baselines(device_key, ids, runtime)
    counts = store.counts(device_key, ids, runtime)
    rows = [
        _row(kernel, baselines.get(key), best.get(key), counts.get(key, {}))
        for kernel in launches.kernels
        for key in [kernel.workload.id]
    ]
    rows.sort(key=lambda row: -1.0 if row.image_s is None else row.image_s, reverse=True)
    used = {record.trial_id: record for record in (*best.values(), *baselines.values())}
    return LatencyReport(
        model=launches.model,
        steps=steps,
        per_what=launches.per_what,
        provenance=provenance(store, device_key, runtime, used.values()),
        rows=rows,
        stages=[_total(stage, count, rows, _launches_in(stage)) for stage, count in launches.runs.items()],
        image=_image(launches, rows),
    )


def _row(
    kernel: KernelLaunches, baseline: Record | None, best: Record | None, counts: dict[TrialState, int]
) -> LatencyRow:
    workload = kernel.workload
    ended = {state: count for state, count in counts.items() if state.ended and state is not TrialState.ABANDONED}
    rate = 1e-9 / best.latency_s if best is not None and best.latency_s else None
    return LatencyRow(
        name=workload.name,
        workload_id=workload.id,
        stages=kernel.stages,
        launches=kernel.total,
        baseline_s=None if baseline is None else baseline.latency_s,
        best_s=None if best is None else best.latency_s,
        best_kind=None if best is None else best.kind,
        verified=best is not None,
        samples=0 if best is None else len(best.samples_s),
        spread=None if best is None else _spread(best.samples_s),
        timer="" if best is None else best.timer,
        gflops=None if rate is None else workload.flops * rate,
        gbytes=None if rate is None else workload.nbytes * rate,
        max_error=None if best is None else best.max_error,
        rtol=None if best is None else best.rtol,
        atol=None if best is None else best.atol,
        trials=sum(ended.values()),
        failures=sum(count for state, count in ended.items() if state.fault),
    )


def _spread(samples_s: tuple[float, ...]) -> float | None:
    if len(samples_s) < 4:
        return None
    low, middle, high = statistics.quantiles(samples_s, n=4, method="inclusive")
    return (high - low) / middle if middle else None


def _image(launches: ModelLaunches, rows: list[LatencyRow]) -> Total:
    return _total(launches.per_what, 1, rows, lambda row: row.launches)


def _launches_in(stage: str) -> Callable[[LatencyRow], int]:
    return lambda row: row.stages.get(stage, 0)


def _total(name: str, runs: int, rows: list[LatencyRow], count: Callable[[LatencyRow], int]) -> Total:
    baseline = best = 0.0
    missing = 0
    for row in rows:
        launches = count(row)
        if not launches:
            continue
        if row.best_s is None:
            missing += 1
            continue
        best += launches * row.best_s
        baseline += launches * (row.best_s if row.baseline_s is None else row.baseline_s)
    return Total(name, runs, baseline, best, missing)


def _total_json(total: Total) -> dict[str, Any]:
    return {**plain(total), "speedup": total.speedup}


def _tolerance(row: LatencyRow) -> str:
    return MISSING if row.atol is None or row.rtol is None else f"{row.atol:.0e} + {row.rtol:.0e}·|x|"


def _columns(rows: list[LatencyRow]) -> list[Column]:
    once = column_unit([*(row.baseline_s for row in rows), *(row.best_s for row in rows)])
    image = column_unit(row.image_s for row in rows)
    return [
        Column("name", "kernel", flexible=True),
        Column("stages", "stage", drop=2),
        Column("launches", "launches", "right", lambda count: f"{count:,}", drop=1),
        Column("baseline", f"baseline {once.name}", "right", once.format),
        Column("best", f"best {once.name}", "right", once.format),
        Column("speedup", "speed-up", "right", ratio),
        Column("image", f"image {image.name}", "right", image.format),
        Column("share", "time %", "right", lambda share: percent(share).removesuffix(" %"), drop=3),
        Column("gflops", "GFLOP/s", "right", digits, drop=4),
        Column("gbytes", "GB/s", "right", digits, drop=9),
        Column("spread", "spread %", "right", lambda share: percent(share).removesuffix(" %"), drop=7),
        Column("verified", "verified", format=lambda yes: "yes" if yes else MISSING, drop=6),
        Column("max_error", "max error", "right", error, drop=8),
        Column("tolerance", "tolerance", format=_tolerance, drop=10),
        Column("trials", "trials", "right", lambda count: f"{count:,}"),
        Column("failures", "failed", "right", lambda count: f"{count:,}", drop=5),
    ]


def _total_columns(totals: list[Total]) -> list[Column]:
    return [
        Column("name", "total per"),
        Column("runs", "runs", "right"),
        Column("baseline_s", "baseline", "right", duration),
        Column("best_s", "best", "right", duration),
        Column("speedup", "speed-up", "right", ratio),
        Column("share", "time %", "right", lambda share: percent(share).removesuffix(" %")),
        *([Column("missing", "no time", "right")] if any(total.missing for total in totals) else []),
    ]
