"""What a session knows of its kernels, and the leases that share them out among the tuners of one device."""

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

_RENEW_AFTER_S = LEASE_S / 5
"""Renewing a lease after each trial would only cost commits: a trial is short compared with a lease."""


class KernelLeases:
    """Leases of a session on its kernels, and which kernels other sessions have measured meanwhile.

    Make this before the session reads its kernels' trials: trials that end in between then count as another session's,
    and are read again by `KernelStates.refresh`.

    Args:
        store: the database that the tuners share.
        device_key: the device that they tune for.
        runtime: how they measure.
        kernel_ids: the session's kernels.
    """

    def __init__(self, store: Store, device_key: str, runtime: Runtime, kernel_ids: Collection[str]) -> None:
        self._store = store
        self._device_key = device_key
        self._runtime = runtime
        self._session_id = 0
        self._renewed = 0.0
        self._known_counts = self._ended_counts(kernel_ids)

    def begin(self, session_id: int) -> None:
        """Set the session that holds the leases. To be called before the first lease."""
        self._session_id = session_id

    @contextmanager
    def hold_first(self, kernel_ids: Sequence[str]) -> Iterator[str | None]:
        """Lease the first of ``kernel_ids`` that no other session holds, for the ``with`` block.

        Yields its id, or None if other sessions hold all of them. If the block raises, the lease lasts until the
        session ends.
        """
        leased = claim(self._store, self._session_id, kernel_ids)
        self._renewed = time.monotonic()
        yield leased
        if leased is not None:
            self._known_counts |= self._ended_counts([leased])
            give_back(self._store, self._session_id, leased)

    def renew(self, kernel_id: str) -> bool:
        """Renew the lease if that is due; False if another session has taken the kernel over."""
        if time.monotonic() - self._renewed < _RENEW_AFTER_S:
            return True
        self._renewed = time.monotonic()
        return renew(self._store, self._session_id, kernel_id)

    def count_own(self, kernel_id: str, state: TrialState) -> None:
        """Count a trial of this session on a kernel that another session may hold: that one's trials stay unknown."""
        known = self._known_counts.setdefault(kernel_id, {})
        known[state] = known.get(state, 0) + 1

    def changed_by_others(self, kernel_ids: Collection[str]) -> list[str]:
        """Return those of ``kernel_ids`` with trials that this session does not know, and mark these as known."""
        counts = self._ended_counts(kernel_ids)
        changed = [kernel for kernel, states in counts.items() if states != self._known_counts.get(kernel)]
        self._known_counts |= counts
        return changed

    def _ended_counts(self, kernel_ids: Collection[str]) -> dict[str, dict[TrialState, int]]:
        """Return the number of ended trials by kernel id and state."""
        counts = self._store.counts(self._device_key, kernel_ids, self._runtime)
        return {
            kernel: {state: count for state, count in counts.get(kernel, {}).items() if state.ended}
            for kernel in kernel_ids
        }


class KernelStates:
    """The state of each kernel of a session, read from the database and kept up to date by the session's thread.

    Args:
        request: of the session.
        store: the database.
        listener: told of kernels that are skipped.
        kernels: by id.
        leases: of the session; they tell which kernels other sessions have measured.

    Attributes:
        kernels: by id.
        baselines: latency of the latest baseline in seconds, by kernel id.
        skipped: why a kernel gets no trials, by kernel name.
        scheduler: search trials and best latency of each kernel, and which kernel is due.
    """

    def __init__(
        self,
        request: TuneRequest,
        store: Store,
        listener: TuneListener,
        kernels: Mapping[str, Kernel],
        leases: KernelLeases,
    ) -> None:
        self.kernels = kernels
        self.baselines: dict[str, float] = {}
        self.skipped: dict[str, str] = {}
        self._request = request
        self._store = store
        self._listener = listener
        self._leases = leases
        self._calls = _calls_per_image(request, kernels)
        self._outdated: dict[str, int] = {}
        self.scheduler = TaskScheduler([self._read_progress(kernel) for kernel in kernels.values()], request.trials)

    def tried(self, kernel_id: str) -> list[TrialSummary]:
        """Return the kernel's trials on this device that have ended, those of other sessions included."""
        return self._store.tried(self._request.device.key, kernel_id, self._request.device.runtime)

    def by_time(self) -> list[KernelProgress]:
        """Return all kernels, by time per image, the longest first."""
        return sorted(self.scheduler.kernels.values(), key=lambda progress: -progress.time_s)

    def record(self, progress: KernelProgress, kind: TrialKind, latency_s: float | None) -> None:
        """Count a trial of this session that ended; ``latency_s`` is None for one that failed."""
        if kind is TrialKind.SEARCH:
            progress.record(latency_s)
            return
        if kind is TrialKind.BASELINE and latency_s is not None:
            self.baselines[progress.id] = latency_s
        _lower_best(progress, latency_s)

    def forget_baseline(self, kernel_id: str) -> None:
        """Count no baseline measured so far: today's untuned schedule is another program."""
        self._outdated[kernel_id] = max((trial.trial_id for trial in self.tried(kernel_id)), default=0)
        self.baselines.pop(kernel_id, None)

    def reload_best(self, progress: KernelProgress) -> None:
        """Read the kernel's best latency and its baseline from the database, because a repeat may have changed them."""
        key, runtime = self._request.device.key, self._request.device.runtime
        for record in self._store.best(key, [progress.id], runtime).values():
            progress.best_s = record.latency_s
        for record in self._store.baselines(key, [progress.id], runtime).values():
            if record.trial_id > self._outdated.get(progress.id, 0):
                self.baselines[progress.id] = record.latency_s

    def refresh(self, kernel_ids: Collection[str]) -> list[str]:
        """Read those of ``kernel_ids`` again that other sessions have measured meanwhile, and return their ids."""
        changed = self._leases.changed_by_others(kernel_ids)
        for kernel_id in changed:
            progress, stored = self.scheduler.kernels[kernel_id], self._read_progress(self.kernels[kernel_id])
            progress.trials, progress.stale, progress.best_s = stored.trials, stored.stale, stored.best_s
        return changed

    def skip(self, progress: KernelProgress, reason: str) -> None:
        """Give the kernel no more trials."""
        name = self.kernels[progress.id].name
        self.skipped[name] = reason
        progress.exhausted = True
        self._listener.on(KernelSkipped(progress.id, name, reason))

    def _read_progress(self, kernel: Kernel) -> KernelProgress:
        """Return the kernel's progress on this device from the database, and set its baseline."""
        progress = KernelProgress(kernel.id, self._calls[kernel.id])
        for trial in self.tried(kernel.id):
            if trial.kind is TrialKind.SEARCH:
                progress.record(trial.latency_s)
                continue
            _lower_best(progress, trial.latency_s)
            outdated = trial.trial_id <= self._outdated.get(kernel.id, 0)
            if trial.kind is TrialKind.BASELINE and trial.latency_s is not None and not outdated:
                self.baselines[kernel.id] = trial.latency_s
        return progress


def _calls_per_image(request: TuneRequest, kernels: Collection[str]) -> dict[str, int]:
    """Return launches per image by kernel id, over the requested stages."""
    calls = dict.fromkeys(kernels, 0)
    for (stage, kernel), count in request.capture.calls_per_image(request.steps).items():
        if kernel in calls and (not request.stages or stage in request.stages):
            calls[kernel] += count
    return calls


def _lower_best(progress: KernelProgress, latency_s: float | None) -> None:
    """Lower the kernel's best latency by a trial that is no part of the budget: a baseline or a transfer."""
    if latency_s is not None and (progress.best_s is None or latency_s < progress.best_s):
        progress.best_s = latency_s
