"""Fidelity: whether times on one device, or through one runtime, predict those on another."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ..database.fidelity import Pair, shared_schedules
from ..database.reader import Reader
from ..errors import UsageError
from ..states import Runtime
from ..units import MISSING
from .plain import plain
from .tables import Column, print_left_out, print_rows


@dataclass(frozen=True)
class FidelityRow:
    """One class of kernels: those whose first operator is the same.

    ``ratio`` is the geometric mean of ``there / here`` over the schedules, ``spread`` its geometric standard deviation
    (1 where all ratios are the same; None for a single one). ``tau`` is Kendall's tau-b between the orders of each
    kernel's schedules, weighted by pairs of schedules; None where no kernel has two. ``best_kept`` counts the kernels
    whose fastest schedule here is the fastest there, of ``ranked`` that have two or more.
    """

    name: str
    kernels: int
    schedules: int
    ratio: float
    spread: float | None
    tau: float | None
    pairs: int
    best_kept: int
    ranked: int


@dataclass(frozen=True)
class FidelityReport:
    """Schedules measured on two devices: per class of kernels, and over all."""

    here: str
    here_runtime: Runtime
    there: str
    there_runtime: Runtime
    label: str
    rows: list[FidelityRow]
    overall: FidelityRow
    points: list[tuple[str, float, float]]
    """Each schedule: its kernel's class, seconds here and seconds there."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; ratios of times, there by here."""
        result: dict[str, Any] = {"report": "fidelity", **plain(self)}
        return result

    def sentences(self) -> list[str]:
        """What it comes to, in words."""
        found = self.overall
        there = f"{self.there} ({self.label})" if self.label else self.there
        lines = [
            f"A schedule takes {found.ratio:.2f} × as long on {there} as on {self.here}: the geometric mean of "
            f"{found.schedules}."
        ]
        if found.spread is not None:
            lines.append(f"About two thirds lie within a factor of {found.spread:.2f} of that.")
        if found.tau is not None:
            lines.append(
                f"Kendall's tau between the two orders: {found.tau:.2f} over {found.pairs} pairs; the fastest schedule "
                f"is the same for {found.best_kept} of {found.ranked} kernels."
            )
        return lines

    def render(self, console: Console, limit: int | None = None) -> None:
        """Prints the table and what it comes to."""
        rows = [plain(row) for row in self.rows[:limit]]
        title = f"{self.there} ({self.there_runtime.value}) against {self.here} ({self.here_runtime.value})"
        print_rows(rows, _COLUMNS, json=False, console=console, title=title)
        print_left_out(len(self.rows), len(rows), console)
        for line in self.sentences():
            console.print(Text(line), soft_wrap=not console.is_terminal)


def fidelity(store: Reader, here: tuple[str, Runtime], there: tuple[str, Runtime], label: str = "") -> FidelityReport:
    """Compares what was measured on both devices (key and runtime).

    Raises:
        UsageError: they share no schedule.
    """
    pairs = shared_schedules(store, here, there, label)
    if not pairs:
        raise UsageError(
            f"{store.name} has no schedule that was measured both on {here[0]} and on {there[0]}"
            + (f" as {label!r}" if label else ""),
            f"wgtune report fidelity --device {here[0]} --against {there[0]} --measure",
        )
    names = {key: info.name for key, info in store.workloads({pair.here.workload_id for pair in pairs}).items()}
    by_class: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_class.setdefault(kernel_class(names[pair.here.workload_id]), []).append(pair)
    rows = sorted((_row(name, found) for name, found in by_class.items()), key=lambda row: (-row.schedules, row.name))
    points = [(kernel_class(names[p.here.workload_id]), p.here.latency_s, p.there.latency_s) for p in pairs]
    return FidelityReport(*here, *there, label, rows, _row("all", pairs), points)


def kernel_class(name: str) -> str:
    """The operator that a fused kernel's name begins with: ``conv2d`` of ``fused_conv2d1_add_relu``."""
    words = [re.sub(r"\d+$", "", word) if not word.endswith("2d") else word for word in name.split("_")]
    words = [re.sub(r"(?<=[12]d)\d+$", "", word) for word in words if word and word != "fused"]
    return "_".join(words[: 2 if words[1:2] == ["norm"] else 1]) if words else name


def _row(name: str, pairs: Sequence[Pair]) -> FidelityRow:
    logs = [math.log(pair.there.latency_s / pair.here.latency_s) for pair in pairs]
    kernels: dict[str, list[Pair]] = {}
    for pair in pairs:
        kernels.setdefault(pair.here.workload_id, []).append(pair)
    ranked = [found for found in kernels.values() if len(found) > 1]
    taus = [(tau, math.comb(len(found), 2)) for found in ranked if (tau := _tau(found)) is not None]
    weight = sum(count for _, count in taus)
    return FidelityRow(
        name=name,
        kernels=len(kernels),
        schedules=len(pairs),
        ratio=math.exp(statistics.fmean(logs)),
        spread=math.exp(statistics.stdev(logs)) if len(logs) > 1 else None,
        tau=sum(tau * count for tau, count in taus) / weight if weight else None,
        pairs=weight,
        best_kept=sum(
            min(found, key=lambda p: p.here.latency_s) is min(found, key=lambda p: p.there.latency_s)
            for found in ranked
        ),
        ranked=len(ranked),
    )


def _tau(pairs: Sequence[Pair]) -> float | None:
    """Kendall's tau-b (M. G. Kendall, Biometrika 33, 1945) between the two orders; None where all are equal."""
    from scipy.stats import kendalltau

    found = float(kendalltau([p.here.latency_s for p in pairs], [p.there.latency_s for p in pairs]).statistic)
    return found if math.isfinite(found) else None


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


def _times(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f} ×"


_COLUMNS = [
    Column("name", "kernels of", flexible=True),
    Column("kernels", "kernels", "right", drop=2),
    Column("schedules", "schedules", "right"),
    Column("ratio", "time there", "right", _times),
    Column("spread", "spread", "right", _times, drop=1),
    Column("tau", "tau", "right", _number),
    Column("best_kept", "best kept", "right", drop=3),
]
