"""Several tuners at work on one device: each kernel is one's at a time, and all go on from what all have learned."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from ...database.leases import LEASE_S, claim, give_back, renew
from ...database.store import Store
from ...support.enums import Runtime, TrialState

_RENEW_AFTER_S = LEASE_S / 5
"""Renewing with each trial would only cost commits: a trial is short against a lease."""


class Sharing:
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
