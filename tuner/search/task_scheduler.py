"""Which kernel gets the next trials: those whose share of the image's time promises the most.

Baselines are not part of the budget: every kernel gets one. Search trials of earlier sessions on the same device count,
so that the same command goes on where it stopped and ends when there is nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

ROUND = 4
"""Trials that a kernel gets at once: enough for the cost model to learn between rounds, few enough to change course."""

_PATIENCE = 16
"""Trials without improvement after which a kernel counts as half as promising."""


@dataclass
class KernelProgress:
    """What is known of one kernel.

    ``calls`` are its launches per image, ``estimate_s`` the seconds of one launch as long as nothing is measured,
    ``best_s`` the best verified latency so far, ``trials`` the search trials that ended, ``stale`` how many of them
    since the last improvement. ``exhausted`` kernels have no schedule left to try.
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
        """Seconds per image, as far as is known."""
        return self.calls * (self.estimate_s if self.best_s is None else self.best_s)

    def record(self, latency_s: float | None) -> bool:
        """Counts a search trial, None for one that failed; returns whether it is the best so far."""
        self.trials += 1
        better = latency_s is not None and (self.best_s is None or latency_s < self.best_s)
        if better:
            self.best_s = latency_s
        self.stale = 0 if better else self.stale + 1
        return better


class TaskScheduler:
    """Shares out search trials.

    First every kernel gets one round, the heaviest first. Then each round goes to the kernel of largest
    ``time / (1 + trials)``, which shares the trials out in proportion to the kernels' times; a kernel without
    improvement for a while yields to others.

    Args:
        kernels: whatever is to be tuned, with its progress in earlier sessions.
        trials: search trials per kernel on average, None for no limit.
    """

    def __init__(self, kernels: Iterable[KernelProgress], trials: int | None) -> None:
        self.kernels = {kernel.id: kernel for kernel in kernels}
        self._total = None if trials is None else trials * len(self.kernels)
        self._first = ROUND if trials is None else min(ROUND, trials)

    @property
    def left(self) -> int | None:
        """Search trials still to spend; None without limit, 0 when every kernel is exhausted."""
        if all(kernel.exhausted for kernel in self.kernels.values()):
            return 0
        if self._total is None:
            return None
        return max(0, self._total - sum(kernel.trials for kernel in self.kernels.values()))

    def due(self, underway: Mapping[str, int] | None = None) -> list[tuple[KernelProgress, int]]:
        """The kernels that may get trials, the most urgent first, and how many each gets now; empty when none is left.

        Whoever shares the kernels with others takes the first that it can have. Trials ``underway``, by kernel id,
        count as if they had ended without improving anything.
        """
        expected = underway or {}
        left = self.left
        if left is not None:
            left = max(0, left - sum(expected.values()))
        if left == 0:
            return []
        standing = {
            kernel.id: replace(kernel, trials=kernel.trials + more, stale=kernel.stale + more)
            for kernel in self.kernels.values()
            if not kernel.exhausted
            for more in [expected.get(kernel.id, 0)]
        }
        begun = [kernel for kernel in standing.values() if kernel.trials < self._first]
        rest = [kernel for kernel in standing.values() if kernel.trials >= self._first]
        begun.sort(key=lambda kernel: (kernel.time_s, kernel.id), reverse=True)
        rest.sort(key=lambda kernel: (_promise(kernel), kernel.id), reverse=True)
        counts = [(kernel.id, self._first - kernel.trials) for kernel in begun] + [
            (kernel.id, ROUND) for kernel in rest
        ]
        return [(self.kernels[one], count if left is None else min(count, left)) for one, count in counts]


def _promise(kernel: KernelProgress) -> float:
    return kernel.time_s / (1 + kernel.trials) / (1 + kernel.stale / _PATIENCE)
