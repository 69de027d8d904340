"""Programs that are not run any more: they took the worker down too often, in whatever session."""

from __future__ import annotations

from dataclasses import dataclass

from ...database.queries.health import crashes
from ...database.store import Store
from ...support.enums import QUARANTINE_AFTER, TrialState


@dataclass(frozen=True)
class Refusal:
    """Why a program is not run: ``state`` is how it ended last."""

    state: TrialState
    words: str


class Quarantine:
    """What has crashed on a session's device, through its runtime, under its driver: a new driver is a new chance."""

    def __init__(self, store: Store, session_id: int) -> None:
        self._store = store
        self._session_id = session_id
        self._crashes: dict[str, dict[str, tuple[int, TrialState]]] = {}

    def refusal(self, workload_id: str, program_digest: str) -> Refusal | None:
        """Why a program of a workload is not to be run; None where it may be."""
        count, state = self._of(workload_id).get(program_digest, (0, TrialState.RUN_ERROR))
        if count < QUARANTINE_AFTER:
            return None
        return Refusal(
            state,
            f"in quarantine: it took the worker down {count} times under this driver, {state.value} the last time",
        )

    def saw(self, workload_id: str, program_digest: str, state: TrialState) -> None:
        """Counts how a trial ended."""
        if state.crash:
            known = self._of(workload_id)
            known[program_digest] = (known.get(program_digest, (0, state))[0] + 1, state)

    def _of(self, workload_id: str) -> dict[str, tuple[int, TrialState]]:
        if workload_id not in self._crashes:
            self._crashes[workload_id] = crashes(self._store, self._session_id, workload_id)
        return self._crashes[workload_id]
