"""The read contract: what the rest of wgtune may ask of a database, or of several that are read as one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..support.enums import TrialState
from .device_identity import Alias
from .schema.records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Record,
    Runtime,
    SessionRecord,
    TrialKind,
    TrialPoint,
    TrialSummary,
    WorkloadInfo,
)

if TYPE_CHECKING:
    from .sql_reader import SqlReader

Self = TypeVar("Self", bound="Reader")


@dataclass(frozen=True)
class TrialOrigin:
    """Where a trial is stored: the database, and the trial's session and number there.

    ``database`` is as `Reader.name`. ``release`` is the release's file name, empty for the user's own database.
    """

    database: str
    session_id: int
    number: int
    release: str = ""

    def __str__(self) -> str:
        of_release = f" of the release {self.release}" if self.release else ""
        return f"trial {self.number} of session {self.session_id}{of_release}"

    @property
    def command(self) -> str:
        """The command that shows the trial. A server's URL is without its password."""
        return f"wgtune db show {self.session_id} {self.number} --db {shlex.quote(self.database)}"


class Reader(Protocol):
    """The read contract of one database (`SqlReader`, `Store`) or of several that are read as one (`Layers`).

    Methods may be called from any thread. Each is a transaction of its own, so two calls may see different states of
    the database. All raise DatabaseError when the database fails or holds a value that cannot be read back.

    The contract has no SQL. A query of its own needs a `SqlReader`; for several databases it runs on each of `layers`.
    """

    @property
    def name(self) -> str:
        """How messages call the database: a path, or a URL without its password."""
        ...

    @property
    def layers(self) -> Sequence[SqlReader]:
        """The databases that this is made of, the user's own first."""
        ...

    def close(self) -> None:
        """Close the connections. No method may be called afterwards."""
        ...

    def __enter__(self: Self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def best(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime = Runtime.WGPU,
        *,
        fits: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> dict[str, Record]:
        """Return the verified trial of lowest median latency of each workload, the oldest of equals; baselines count.

        Passed over are: schedules that the installed TVM is known not to apply (`wgtune db replay`), trials whose
        schedule was measured again since (or failed since, as another program), and every `TrialKind.CHECK`.

        Args:
            device_key: as `DeviceInfo.key`.
            workload_ids: those without such a trial are left out of the answer.
            runtime: how the trials were measured.
            fits: receives a record's ``needs`` and returns whether the record may be used, for example where a tier
                has lower limits than the device.
        """
        ...

    def baselines(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> dict[str, Record]:
        """Return the latest verified baseline of each workload that has one.

        The untuned schedule of an older version may have been faster or slower; what is tuned now is compared with
        today's.
        """
        ...

    def times(
        self,
        device_keys: Collection[str],
        schedules: Mapping[str, Collection[str]],
        runtime: Runtime = Runtime.WGPU,
    ) -> dict[tuple[str, str, str], float]:
        """Return the lowest verified median, in seconds, of given schedules on given devices.

        ``schedules`` holds traces by workload id. The answer's keys are device key, workload id and trace. Stale
        schedules and trials that were measured again since do not count, as in `best`.
        """
        ...

    def aliases(self) -> list[Alias]:
        """Return the user's aliases of devices, by level and name, without those that come with wgtune."""
        ...

    def tried(self, device_key: str, workload_id: str, runtime: Runtime = Runtime.WGPU) -> list[TrialSummary]:
        """Return the ended trials of the workload, oldest first.

        Left out are abandoned trials, of which nothing is known; checks; trials that were measured again since;
        unverified trials, which are still to be tried; and successful trials of stale schedules. Failures of stale
        schedules remain, since they are facts about their programs.
        """
        ...

    def counts(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime = Runtime.WGPU,
        *,
        kind: TrialKind | None = None,
        with_stale: bool = True,
    ) -> dict[str, dict[TrialState, int]]:
        """Return the number of trials, of one ``kind`` or of all, by workload and state, without zeros.

        Stale schedules count unless ``with_stale`` is false.
        """
        ...

    def history(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> list[TrialPoint]:
        """Return every ended trial of the workloads except checks, abandoned ones too, in the order of their ends."""
        ...

    def devices(self) -> list[DeviceInfo]:
        """Return every device that had a session, by key."""
        ...

    def models(self) -> list[ModelInfo]:
        """Return every captured model, oldest first."""
        ...

    def model_kernels(self, capture_key: str) -> list[ModelKernel]:
        """Return the model's kernels per stage, in order; nothing for an unknown model."""
        ...

    def workloads(self, workload_ids: Collection[str]) -> dict[str, WorkloadInfo]:
        """Return the workloads by id, without the ids that are unknown."""
        ...

    def sessions(
        self, *, device_key: str | None = None, capture_key: str | None = None, limit: int | None = None
    ) -> list[SessionRecord]:
        """Return sessions, the most recent first, of one device or one model where given."""
        ...

    def origin(self, record: Record) -> TrialOrigin:
        """Return where a record of this reader is stored, in the numbers of that database."""
        ...

    def of_layer(self, record: Record, index: int) -> Record:
        """Return a record of ``layers[index]`` as this reader returns it: its ids may be others here."""
        ...
