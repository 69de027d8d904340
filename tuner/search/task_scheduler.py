"""Which kernel gets the next search trials, by its share of the time of an image.

Only search trials count: every kernel gets a baseline in any case. Search trials of earlier sessions on the same device
count too, so that the same command goes on where it stopped, and ends when all trials are spent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

ROUND = 4
"""Trials that a kernel gets at once: enough for the cost model to learn from, few enough to turn to another kernel."""

_PATIENCE = 16
"""Trials without improvement after which the priority of a kernel is halved."""


@dataclass
class KernelProgress:
    """The state of one kernel.

    ``calls`` counts its launches per image. ``estimate_s`` are the seconds of one launch until one is measured,
    ``best_s`` those of the best verified trial. ``trials`` counts the search trials that ended, ``stale`` those since
    the last improvement. An ``exhausted`` kernel has no schedule left to try.
    """

    id: str
    calls: int
    estimate_s: float = 0.0
    best_s: float | None = None
    trials: int = 0
    stale: int = 0
    exhausted: bool = False

    @property
    def time_s(self) -> float:
        """Seconds per image, by the best trial or else by the estimate."""
        return self.calls * (self.estimate_s if self.best_s is None else self.best_s)

    def record(self, latency_s: float | None) -> bool:
        """Count a search trial, None for one that failed; return whether it is the best so far."""
        self.trials += 1
        better = latency_s is not None and (self.best_s is None or latency_s < self.best_s)
        if better:
            self.best_s = latency_s
        self.stale = 0 if better else self.stale + 1
        return better


class TaskScheduler:
    """Distributes search trials over kernels.

    First every kernel gets one round, the slowest first. Then each round goes to the kernel with the largest
    ``time / (1 + trials)``, which distributes trials in proportion to the kernels' times. The priority of a kernel
    sinks with the trials since its last improvement.

    Args:
        kernels: the kernels to tune, with their progress in earlier sessions.
        trials: search trials per kernel on average, None for no limit.
    """

    def __init__(self, kernels: Iterable[KernelProgress], trials: int | None) -> None:
        self.kernels = {kernel.id: kernel for kernel in kernels}
        self._total = None if trials is None else trials * len(self.kernels)
        self._first = ROUND if trials is None else min(ROUND, trials)

    @property
    def left(self) -> int | None:
        """Number of search trials left; None without limit, 0 when every kernel is exhausted."""
        if all(kernel.exhausted for kernel in self.kernels.values()):
            return 0
        if self._total is None:
            return None
        return max(0, self._total - sum(kernel.trials for kernel in self.kernels.values()))

    def due(self, underway: Mapping[str, int] | None = None) -> list[tuple[KernelProgress, int]]:
        """Return the kernels that may get trials with how many each gets now, by falling priority.

        A tuner that shares the kernels with others takes the first whose lease it gets. The list is empty when no trial
        is left.

        Args:
            underway: trials now being measured, by kernel id. They count as trials that ended without improvement.
        """
        expected = underway or {}
        left = self.left
        if left is not None:
            left = max(0, left - sum(expected.values()))
        if left == 0:
            return []
        expected_progress = {
            kernel.id: replace(kernel, trials=kernel.trials + more, stale=kernel.stale + more)
            for kernel in self.kernels.values()
            if not kernel.exhausted
            for more in [expected.get(kernel.id, 0)]
        }
        first_round = [kernel for kernel in expected_progress.values() if kernel.trials < self._first]
        later = [kernel for kernel in expected_progress.values() if kernel.trials >= self._first]
        first_round.sort(key=lambda kernel: (kernel.time_s, kernel.id), reverse=True)
        later.sort(key=lambda kernel: (_priority(kernel), kernel.id), reverse=True)
        counts = [(kernel.id, self._first - kernel.trials) for kernel in first_round] + [
            (kernel.id, ROUND) for kernel in later
        ]
        return [(self.kernels[one], count if left is None else min(count, left)) for one, count in counts]


def _priority(kernel: KernelProgress) -> float:
    return kernel.time_s / (1 + kernel.trials) / (1 + kernel.stale / _PATIENCE)
