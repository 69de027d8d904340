"""What is known of a session's kernels: from earlier sessions, from other tuners of the device, and from this one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...database.schema.records import TrialKind, TrialSummary
from ...database.store import Store
from ..ir import Kernel
from ..search.task_scheduler import Budget, Progress
from .events import KernelSkipped, TuneListener
from .request import TuneRequest
from .sharing import Sharing


class Standing:
    """The kernels of a session and how each stands; made from the database, and kept by the session's thread.

    ``baselines`` are seconds by kernel id, ``skipped`` says by name why kernels are left out.
    """

    def __init__(
        self, request: TuneRequest, store: Store, listener: TuneListener, kernels: Mapping[str, Kernel]
    ) -> None:
        self.kernels = kernels
        self.baselines: dict[str, float] = {}
        self.skipped: dict[str, str] = {}
        self._request = request
        self._store = store
        self._listener = listener
        self._calls = _calls_per_image(request, kernels)
        self.budget = Budget([self._recall(kernel) for kernel in kernels.values()], request.trials)

    def tried(self, kernel: Kernel) -> list[TrialSummary]:
        """The kernel's trials on this device that ended, those of other tuners too."""
        return self._store.tried(self._request.device.key, kernel.id, self._request.device.runtime)

    def by_weight(self) -> list[Progress]:
        """Every kernel, the heaviest first."""
        return sorted(self.budget.kernels.values(), key=lambda progress: -progress.time_s)

    def record(self, progress: Progress, kind: TrialKind, latency_s: float | None) -> None:
        """Counts a trial that ended; ``latency_s`` is None for one that failed."""
        if kind is TrialKind.SEARCH:
            progress.record(latency_s)
            return
        if kind is TrialKind.BASELINE and latency_s is not None:
            self.baselines[progress.id] = latency_s
        _admit(progress, latency_s)

    def read_best(self, progress: Progress) -> None:
        """Takes the kernel's best and baseline from the database, which a repeated trial may have changed."""
        key, runtime = self._request.device.key, self._request.device.runtime
        for record in self._store.best(key, [progress.id], runtime).values():
            progress.best_s = record.latency_s
        for record in self._store.baselines(key, [progress.id], runtime).values():
            self.baselines[progress.id] = record.latency_s

    def learn(self, sharing: Sharing, kernel_ids: Collection[str]) -> list[str]:
        """Takes over what other tuners have found out about the kernels; those of which there was anything."""
        changed = sharing.news(kernel_ids)
        for identity in changed:
            progress, known = self.budget.kernels[identity], self._recall(self.kernels[identity])
            progress.trials, progress.stale, progress.best_s = known.trials, known.stale, known.best_s
        return changed

    def leave_out(self, progress: Progress, reason: str) -> None:
        """Gives the kernel no more trials."""
        name = self.kernels[progress.id].name
        self.skipped[name] = reason
        progress.exhausted = True
        self._listener.on(KernelSkipped(progress.id, name, reason))

    def _recall(self, kernel: Kernel) -> Progress:
        """The kernel's progress in earlier sessions on this device."""
        progress = Progress(kernel.id, self._calls[kernel.id])
        for trial in self.tried(kernel):
            if trial.kind is TrialKind.SEARCH:
                progress.record(trial.latency_s)
            elif trial.kind is TrialKind.TRANSFER:
                _admit(progress, trial.latency_s)
            elif trial.latency_s is not None:
                known = self.baselines.get(kernel.id, trial.latency_s)
                self.baselines[kernel.id] = min(known, trial.latency_s)
        _admit(progress, self.baselines.get(kernel.id))
        return progress


def _calls_per_image(request: TuneRequest, kernels: Collection[str]) -> dict[str, int]:
    """Launches per image by kernel, over the stages asked for."""
    calls = dict.fromkeys(kernels, 0)
    for (stage, kernel), count in request.capture.calls_per_image(request.steps).items():
        if kernel in calls and (not request.stages or stage in request.stages):
            calls[kernel] += count
    return calls


def _admit(progress: Progress, latency_s: float | None) -> None:
    """Lets compete what is no part of the budget: the baseline, and what another device found."""
    if latency_s is not None and (progress.best_s is None or latency_s < progress.best_s):
        progress.best_s = latency_s
