"""What is known of a session's kernels: from earlier sessions, from other tuners of the device, and from this one."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ...database.leases import LEASE_S, claim, give_back, renew
from ...database.schema.records import TrialKind, TrialSummary
from ...database.store import Store
from ...support.enums import Runtime, TrialState
from ..ir import Kernel
from ..search.task_scheduler import KernelProgress, TaskScheduler
from .events import KernelSkipped, TuneListener
from .request import TuneRequest


class KernelStates:
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
        self.scheduler = TaskScheduler([self._recall(kernel) for kernel in kernels.values()], request.trials)

    def tried(self, kernel: Kernel) -> list[TrialSummary]:
        """The kernel's trials on this device that ended, those of other tuners too."""
        return self._store.tried(self._request.device.key, kernel.id, self._request.device.runtime)

    def by_weight(self) -> list[KernelProgress]:
        """Every kernel, the heaviest first."""
        return sorted(self.scheduler.kernels.values(), key=lambda progress: -progress.time_s)

    def record(self, progress: KernelProgress, kind: TrialKind, latency_s: float | None) -> None:
        """Counts a trial that ended; ``latency_s`` is None for one that failed."""
        if kind is TrialKind.SEARCH:
            progress.record(latency_s)
            return
        if kind is TrialKind.BASELINE and latency_s is not None:
            self.baselines[progress.id] = latency_s
        _admit(progress, latency_s)

    def read_best(self, progress: KernelProgress) -> None:
        """Takes the kernel's best and baseline from the database, which a repeated trial may have changed."""
        key, runtime = self._request.device.key, self._request.device.runtime
        for record in self._store.best(key, [progress.id], runtime).values():
            progress.best_s = record.latency_s
        for record in self._store.baselines(key, [progress.id], runtime).values():
            self.baselines[progress.id] = record.latency_s

    def learn(self, sharing: KernelLeases, kernel_ids: Collection[str]) -> list[str]:
        """Takes over what other tuners have found out about the kernels; those of which there was anything."""
        changed = sharing.news(kernel_ids)
        for identity in changed:
            progress, known = self.scheduler.kernels[identity], self._recall(self.kernels[identity])
            progress.trials, progress.stale, progress.best_s = known.trials, known.stale, known.best_s
        return changed

    def leave_out(self, progress: KernelProgress, reason: str) -> None:
        """Gives the kernel no more trials."""
        name = self.kernels[progress.id].name
        self.skipped[name] = reason
        progress.exhausted = True
        self._listener.on(KernelSkipped(progress.id, name, reason))

    def _recall(self, kernel: Kernel) -> KernelProgress:
        """The kernel's progress in earlier sessions on this device."""
        progress = KernelProgress(kernel.id, self._calls[kernel.id])
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


def _admit(progress: KernelProgress, latency_s: float | None) -> None:
    """Lets compete what is no part of the budget: the baseline, and what another device found."""
    if latency_s is not None and (progress.best_s is None or latency_s < progress.best_s):
        progress.best_s = latency_s


_RENEW_AFTER_S = LEASE_S / 5
"""Renewing with each trial would only cost commits: a trial is short against a lease."""


class KernelLeases:
    """A session's leases, and what other sessions have booked meanwhile.

    Args:
        store: that the tuners share.
        device_key: what they tune for.
        runtime: how they measure.
        kernel_ids: the session's kernels, whose trials so far are about to be recalled.
    """

    def __init__(self, store: Store, device_key: str, runtime: Runtime, kernel_ids: Collection[str]) -> None:
        self._store = store
        self._device_key = device_key
        self._runtime = runtime
        self._session_id = 0
        self._renewed = 0.0
        self._seen = self._ended(kernel_ids)

    def join(self, session_id: int) -> None:
        """Says whose leases these are."""
        self._session_id = session_id

    @contextmanager
    def holding(self, kernel_ids: Sequence[str]) -> Iterator[str | None]:
        """Holds the first of the kernels that nobody else holds; None where others hold all of them.

        What ends in an exception keeps its lease until the session ends.
        """
        mine = claim(self._store, self._session_id, kernel_ids)
        self._renewed = time.monotonic()
        yield mine
        if mine is not None:
            self.booked(mine)
            give_back(self._store, self._session_id, mine)

    def keep(self, kernel_id: str) -> bool:
        """Puts the end of the lease off when that is due; False where another tuner has taken the kernel over."""
        if time.monotonic() - self._renewed < _RENEW_AFTER_S:
            return True
        self._renewed = time.monotonic()
        return renew(self._store, self._session_id, kernel_id)

    def booked(self, kernel_id: str) -> None:
        """Says that what ended last of the kernel's trials was this session's own, which is no news to it."""
        self._seen |= self._ended([kernel_id])

    def news(self, kernel_ids: Collection[str]) -> list[str]:
        """The kernels of which others have ended trials since this was last asked, or since `booked`."""
        found = self._ended(kernel_ids)
        changed = [kernel for kernel, states in found.items() if states != self._seen.get(kernel)]
        self._seen |= found
        return changed

    def _ended(self, kernel_ids: Collection[str]) -> dict[str, dict[TrialState, int]]:
        counts = self._store.counts(self._device_key, kernel_ids, self._runtime)
        return {
            kernel: {state: count for state, count in counts.get(kernel, {}).items() if state.ended}
            for kernel in kernel_ids
        }
