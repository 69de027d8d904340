"""PyTorch report: time of a model's stages tuned, untuned and in PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ..database.reader import Reader
from ..support.formatting import duration, ratio
from ..support.serialization import plain
from .latency import Total, latency
from .provenance import SOFTWARE_WARNING, Provenance
from .tables import Column, print_rows

if TYPE_CHECKING:
    from ..tuner.remeasure.pytorch_baseline import StageTime


@dataclass(frozen=True)
class PyTorchRow:
    """One stage, run once, or an image, as far as its stages were timed. Times in seconds; PyTorch's by mode.

    ``runs`` is how often an image runs the stage. ``missing`` kernels have no time: ``untuned_s`` and ``tuned_s`` lack
    them.
    """

    name: str
    runs: int
    untuned_s: float
    tuned_s: float
    missing: int
    pytorch_s: dict[str, float]

    @property
    def ratio(self) -> float | None:
        """Tuned over PyTorch's fastest; None where either is not known whole."""
        if self.missing or not self.pytorch_s or not self.tuned_s:
            return None
        return self.tuned_s / min(self.pytorch_s.values())


@dataclass(frozen=True)
class PyTorchReport:
    """Records of one device beside what PyTorch took on ``torch_device``."""

    model: str
    steps: int
    per_what: str
    provenance: Provenance
    torch_device: str
    torch_version: str
    rows: list[PyTorchRow]
    image: PyTorchRow
    times: Sequence[StageTime]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; times in seconds."""
        rows = [{**plain(row), "ratio": row.ratio} for row in (*self.rows, self.image)]
        times = [{**plain(one), "mode": one.mode.name} for one in self.times]
        result: dict[str, Any] = {"report": "pytorch", **plain(self), "rows": rows[:-1], "image": rows[-1]}
        return {**result, "times": times}

    def sentences(self) -> list[str]:
        """Return the summary as sentences, and what the numbers do not show."""
        device = self.provenance.device.key
        lines = []
        if self.image.ratio is not None:
            mode = min(self.image.pytorch_s, key=lambda name: self.image.pytorch_s[name])
            what = f"one {self.per_what} takes" if self.image.name == self.per_what else f"{self.image.name} take"
            lines.append(
                f"Tuned, {what} {duration(self.image.tuned_s)}; with PyTorch ({mode}) "
                f"{duration(self.image.pytorch_s[mode])}: {ratio(self.image.ratio)} as long."
            )
        if self.image.missing:
            lines.append(f"{self.image.missing} kernels have no time on {device}: the sums lack them.")
        lines += [f"{one.stage}, {one.mode.name}: {one.error}" for one in self.times if one.error]
        worst = max((one.difference for one in self.times if one.difference is not None), default=None)
        if worst is not None:
            lines.append(
                f"PyTorch's modes differ from eager float32 by {worst:.0e} of a stage's largest value at most."
            )
        lines.append(
            f"Ours are sums over the kernels, each measured by itself on {device}; PyTorch {self.torch_version} ran "
            f"whole stages on {self.torch_device}, with random weights."
        )
        return lines

    def render(self, console: Console, limit: int | None = None) -> None:
        """Print the table and the summary sentences."""
        modes = list(dict.fromkeys(one.mode.name for one in self.times))
        rows = [
            {
                "name": row.name,
                "runs": row.runs,
                "untuned": row.untuned_s or None,
                "tuned": row.tuned_s or None,
                **{mode: row.pytorch_s.get(mode) for mode in modes},
                "ratio": row.ratio,
            }
            for row in (*self.rows[:limit], self.image)
        ]
        columns = [
            Column("name", "stage, once", flexible=True),
            Column("runs", "runs", "right", drop=1),
            Column("untuned", "untuned", "right", duration),
            Column("tuned", "tuned", "right", duration),
            *(Column(mode, f"PyTorch {mode}", "right", duration) for mode in modes),
            Column("ratio", "tuned / PyTorch", "right", ratio),
        ]
        title = f"{self.model} on {self.provenance.device.key}, beside PyTorch on {self.torch_device}"
        print_rows(rows, columns, json=False, console=console, title=title)
        for line in self.sentences():
            console.print(Text(line), soft_wrap=not console.is_terminal)
        if self.provenance.device.software:
            console.print(Text(SOFTWARE_WARNING, style="yellow"), soft_wrap=not console.is_terminal)


def beside_pytorch(
    store: Reader,
    capture_key: str,
    device_key: str,
    steps: int,
    times: Sequence[StageTime],
    torch_device: str,
    torch_version: str,
) -> PyTorchReport:
    """Put ``times`` beside the device's records. Raises UsageError where the database has no such model."""
    known = latency(store, capture_key, device_key, steps)
    measured: dict[str, dict[str, float]] = {}
    for one in times:
        if one.samples_s:
            measured.setdefault(one.stage, {})[one.mode.name] = statistics.median(one.samples_s)
    stages = [total for total in known.stages if any(one.stage == total.name for one in times)]
    rows = [_row(total, 1 / total.runs, measured.get(total.name, {})) for total in stages]
    return PyTorchReport(
        model=known.model.name,
        steps=steps,
        per_what=known.per_what,
        provenance=known.provenance,
        torch_device=torch_device,
        torch_version=torch_version,
        rows=rows,
        image=_image(known.per_what if len(rows) == len(known.stages) else "these stages", rows),
        times=times,
    )


def _row(total: Total, share: float, pytorch_s: dict[str, float]) -> PyTorchRow:
    return PyTorchRow(total.name, total.runs, total.baseline_s * share, total.best_s * share, total.missing, pytorch_s)


def _image(name: str, rows: Sequence[PyTorchRow]) -> PyTorchRow:
    """All stages as often as an image runs them; of PyTorch's modes those that every stage has."""
    modes = [mode for mode in (rows[0].pytorch_s if rows else {}) if all(mode in row.pytorch_s for row in rows)]
    return PyTorchRow(
        name,
        1,
        sum(row.runs * row.untuned_s for row in rows),
        sum(row.runs * row.tuned_s for row in rows),
        sum(row.missing for row in rows),
        {mode: sum(row.runs * row.pytorch_s[mode] for row in rows) for mode in modes},
    )
