"""A cost model: gradient-boosted trees that predict how near a schedule comes to the best of its kernel and device.

It starts from what other devices measured, then learns from the device that is tuned. Times of two kernels or two
devices do not compare, so each is told relative to the best one of its kernel, device and runtime: 0 for the best, −1
for one that takes twice as long. A failed trial counts as the worst.

The trees are XGBoost's (T. Chen and C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016): at each branch
there is a way for a feature that is absent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .features import SIZE, Features

_WORST = -4.0
"""The target of a failed trial, and of one that takes 16 times as long as the best: how much worse does not matter."""

_ENOUGH = 12
"""Results of the tuned device from which on trees are better than chance."""

_TRUSTED = 6
"""Own results of a kernel after which they weigh as much as what other devices taught."""

_SIZE_WEIGHT = 0.02
"""Power of a program's length in what counts as its time: twice the text, for every visitor to load and compile, must
be 1.4 % faster."""

_TYPICAL_SIZE = 13.0
"""`SIZE` of a program whose text is not known."""

_PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 5,
    "eta": 0.15,
    "min_child_weight": 1.0,
    "lambda": 1.0,
    "tree_method": "hist",
    "max_bin": 64,
    "seed": 0,
    "verbosity": 0,
}
_TREES = 60


@dataclass(frozen=True)
class Example:
    """What a trial taught: ``latency_s`` is None for one that failed.

    ``group`` is its kernel, device and runtime; times of one group compare. ``device`` has the device's features,
    ``features`` the kernel's and the schedule's.
    """

    group: tuple[str, ...]
    device: Mapping[str, float]
    features: Mapping[str, float]
    latency_s: float | None


class CostModel:
    """Predicts how fast schedules are on one device; shared by all kernels of a session.

    Two forests: one of what others measured, one of this device's own results. The more results a kernel has here, the
    less the first one counts: devices differ most in what is best.

    Args:
        device: features of the device that is tuned.
        threads: of XGBoost. With one, the same examples make the same trees.
    """

    def __init__(self, device: Mapping[str, float] | None = None, threads: int = 1) -> None:
        self._device = dict(device or {})
        self._others = _Forest(threads)
        self._own = _Forest(threads)
        self._results: Counter[str] = Counter()

    @property
    def trained(self) -> bool:
        """Whether it knows enough to rank schedules."""
        return max(len(self._others), len(self._own)) >= _ENOUGH

    def know(self, examples: Iterable[Example]) -> None:
        """Learn from examples of other devices, or of this one in other runtimes."""
        self._others.add(examples)

    def learn(self, kernel_id: str, results: Iterable[tuple[Features, float | None]]) -> None:
        """Learn the latencies of a kernel's schedules on this device, in seconds; None for a trial that failed."""
        examples = [Example((kernel_id,), self._device, features, seconds) for features, seconds in results]
        self._own.add(examples)
        self._results[kernel_id] += len(examples)

    def scores(self, kernel_id: str, points: Sequence[Features]) -> list[float]:
        """Return a prediction for each schedule: log2 of the best time over its time, higher for faster."""
        rows = [{**features, **self._device} for features in points]
        if len(self._others) < _ENOUGH:
            return self._own.predict(rows)
        if len(self._own) < _ENOUGH:
            return self._others.predict(rows)
        share = _TRUSTED / (_TRUSTED + self._results[kernel_id])
        both = zip(self._others.predict(rows), self._own.predict(rows), strict=True)
        return [share * others + (1 - share) * own for others, own in both]


class _Forest:
    """Boosted trees over examples, grown when they are asked next."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._examples: list[Example] = []
        self._names: dict[str, int] = {}
        self._trees: Any = None

    def __len__(self) -> int:
        return len(self._examples)

    def add(self, examples: Iterable[Example]) -> None:
        """Add examples."""
        before = len(self)
        self._examples += examples
        if len(self) > before:
            self._trees = None

    def predict(self, rows: Sequence[Mapping[str, float]]) -> list[float]:
        """Return the target that each row promises; features that no example has do not count."""
        import xgboost

        if self._trees is None:
            known = [{**one.features, **one.device} for one in self._examples]
            names = sorted({name for one in known for name in one} - {SIZE})
            self._names = {name: number for number, name in enumerate(names)}
            data = xgboost.DMatrix(self._matrix(known), targets(self._examples), nthread=self._threads)
            self._trees = xgboost.train({**_PARAMETERS, "nthread": self._threads}, data, _TREES)
        matrix = xgboost.DMatrix(self._matrix(rows), nthread=self._threads)
        return [float(score) for score in self._trees.predict(matrix)]

    def _matrix(self, rows: Sequence[Mapping[str, float]]) -> Any:
        matrix = np.full((len(rows), len(self._names)), np.nan, dtype=np.float32)
        for number, row in enumerate(rows):
            for name, value in row.items():
                column = self._names.get(name)
                if column is not None:
                    matrix[number, column] = value
        return matrix


def size_penalty(features: Mapping[str, float]) -> float:
    """Return the factor by which the length of a program's text counts against its time."""
    return float(2 ** (_SIZE_WEIGHT * features.get(SIZE, _TYPICAL_SIZE)))


def targets(examples: Sequence[Example]) -> list[float]:
    """Return log2 of the best time of each example's group over its time, no less than the worst.

    Times count with the penalty of their program's length.
    """
    best: dict[tuple[str, ...], float] = {}
    times = [None if one.latency_s is None else one.latency_s * size_penalty(one.features) for one in examples]
    for one, time in zip(examples, times, strict=True):
        if time is not None:
            best[one.group] = min(best.get(one.group, math.inf), time)
    return [
        _WORST if time is None else max(_WORST, math.log2(best[one.group] / time))
        for one, time in zip(examples, times, strict=True)
    ]
