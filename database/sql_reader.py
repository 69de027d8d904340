"""The read contract over one SQL database, and the conditions that several queries share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, func, or_, select

from ..support.enums import TrialState
from ..support.hashing import digest_of
from .device_identity import ALIASES, Alias, from_row
from .reader import TrialOrigin
from .schema.engine import translated
from .schema.records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Record,
    ReplayStatus,
    Runtime,
    SessionRecord,
    TrialKind,
    TrialPoint,
    TrialSummary,
    TvmForm,
    WorkloadInfo,
)
from .schema.rows import (
    RECORDS,
    SESSIONS,
    device,
    model,
    model_kernel,
    replay,
    schedule,
    session,
    to_device,
    to_model,
    to_model_kernel,
    to_point,
    to_record,
    to_session,
    to_summary,
    to_workload,
    trial,
    workload,
    workload_form,
)

Self = TypeVar("Self", bound="SqlReader")
T = TypeVar("T")

_AT_ONCE = 500


class SqlReader:
    """The `Reader` of one database that is open already; `Store.open` and `readonly.opened` open one.

    Modules of this package run SQL of their own within `reading`.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name
        """How messages call this database: a path, or a URL without its password."""

    @property
    def layers(self) -> tuple[SqlReader, ...]:
        """See `Reader.layers`: this database alone."""
        return (self,)

    def close(self) -> None:
        """See `Reader.close`."""
        self._engine.dispose()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def best(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime = Runtime.WGPU,
        *,
        fits: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> dict[str, Record]:
        """See `Reader.best`."""
        # Ids differ between copies of a database; what began first, and whose session, do not.
        fastest = (trial.c.latency_s, trial.c.started, trial.c.number, trial.c.id)
        return self._first_of(device_key, workload_ids, runtime, trial.c.kind != TrialKind.CHECK, fastest, fits)

    def baselines(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> dict[str, Record]:
        """See `Reader.baselines`."""
        latest = (trial.c.started.desc(), trial.c.number.desc(), trial.c.id.desc())
        return self._first_of(device_key, workload_ids, runtime, trial.c.kind == TrialKind.BASELINE, latest)

    def times(
        self,
        device_keys: Collection[str],
        schedules: Mapping[str, Collection[str]],
        runtime: Runtime = Runtime.WGPU,
    ) -> dict[tuple[str, str, str], float]:
        """See `Reader.times`."""
        wanted = {(key, digest_of(trace)): trace for key, traces in schedules.items() for trace in traces}
        query = (
            select(device.c.key, workload.c.digest, trial.c.schedule_id, func.min(trial.c.latency_s))
            .select_from(workload)
            .join(trial, trial.c.workload_id == workload.c.id)
            .join(device, device.c.id == trial.c.device_id)
            .where(device.c.key.in_(device_keys), trial.c.runtime == runtime, trial.c.state == TrialState.OK)
            .where(trial.c.kind != TrialKind.CHECK, ~self.stale(), ~is_superseded())
            .group_by(device.c.key, workload.c.digest, trial.c.schedule_id)
        )
        found: dict[tuple[str, str, str], float] = {}
        with self.reading() as connection:
            # By kernel: each statement reads the trials of its own few, so that all of them are read once.
            for some in _batches(wanted):
                kernels = {kernel for kernel, _ in some}
                known = select(schedule.c.id, schedule.c.digest).where(schedule.c.digest.in_({one for _, one in some}))
                digests = {row.id: row.digest for row in connection.execute(known)}
                rows = connection.execute(query.where(workload.c.digest.in_(kernels), trial.c.schedule_id.in_(digests)))
                for key, kernel, schedule_id, seconds in rows:
                    trace = wanted.get((kernel, digests[schedule_id]))
                    if trace is not None:
                        found[key, kernel, trace] = seconds
        return found

    def aliases(self) -> list[Alias]:
        """See `Reader.aliases`."""
        with self.reading() as connection:
            return [from_row(row) for row in connection.execute(ALIASES)]

    def tried(self, device_key: str, workload_id: str, runtime: Runtime = Runtime.WGPU) -> list[TrialSummary]:
        """See `Reader.tried`."""
        columns = (
            trial.c.id,
            trial.c.kind,
            trial.c.state,
            trial.c.program_digest,
            schedule.c.trace,
            trial.c.latency_s,
            schedule.c.digest,
        )
        query = (
            _of_device(select(*columns).join_from(trial, schedule), device_key, runtime)
            .join(workload, workload.c.id == trial.c.workload_id)
            .where(workload.c.digest == workload_id, trial.c.ended.is_not(None))
            .where(trial.c.state.not_in([TrialState.ABANDONED, TrialState.UNVERIFIED]))
            .where(trial.c.kind != TrialKind.CHECK, ~is_superseded())
            .where(or_(trial.c.state != TrialState.OK, ~self.stale()))
            .order_by(trial.c.id)
        )
        with self.reading() as connection:
            return [to_summary(row) for row in connection.execute(query)]

    def counts(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime = Runtime.WGPU,
        *,
        kind: TrialKind | None = None,
        with_stale: bool = True,
    ) -> dict[str, dict[TrialState, int]]:
        """See `Reader.counts`."""
        query = (
            _of_device(select(workload.c.digest, trial.c.state, func.count()).select_from(trial), device_key, runtime)
            .join(workload, workload.c.id == trial.c.workload_id)
            .where(workload.c.digest.in_(workload_ids))
            .group_by(workload.c.digest, trial.c.state)
        )
        if kind is not None:
            query = query.where(trial.c.kind == kind)
        if not with_stale:
            query = query.where(~self.stale())
        found: dict[str, dict[TrialState, int]] = {}
        with self.reading() as connection:
            for digest, state, count in connection.execute(query):
                found.setdefault(digest, {})[state] = count
        return found

    def history(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> list[TrialPoint]:
        """See `Reader.history`."""
        columns = (workload.c.digest, trial.c.session_id, trial.c.state, trial.c.latency_s, trial.c.ended)
        query = (
            _of_device(select(*columns).select_from(trial), device_key, runtime)
            .join(workload, workload.c.id == trial.c.workload_id)
            .where(workload.c.digest.in_(workload_ids), trial.c.ended.is_not(None), trial.c.kind != TrialKind.CHECK)
            .order_by(trial.c.ended, trial.c.id)
        )
        with self.reading() as connection:
            return [to_point(row) for row in connection.execute(query)]

    def devices(self) -> list[DeviceInfo]:
        """See `Reader.devices`."""
        with self.reading() as connection:
            return [to_device(row) for row in connection.execute(select(device).order_by(device.c.key))]

    def models(self) -> list[ModelInfo]:
        """See `Reader.models`."""
        with self.reading() as connection:
            return [to_model(row) for row in connection.execute(select(model).order_by(model.c.id))]

    def model_kernels(self, capture_key: str) -> list[ModelKernel]:
        """See `Reader.model_kernels`."""
        query = (
            select(model_kernel.c.stage, workload.c.digest, model_kernel.c.calls, model_kernel.c.position)
            .join_from(model_kernel, model)
            .join(workload, workload.c.id == model_kernel.c.workload_id)
            .where(model.c.capture_key == capture_key)
            .order_by(model_kernel.c.position, model_kernel.c.stage)
        )
        with self.reading() as connection:
            return [to_model_kernel(row) for row in connection.execute(query)]

    def workloads(self, workload_ids: Collection[str]) -> dict[str, WorkloadInfo]:
        """See `Reader.workloads`."""
        wanted = workload.c.digest.in_(workload_ids)
        forms = select(workload_form).join(workload).where(wanted).order_by(workload_form.c.tvm_version)
        by_id: dict[int, list[TvmForm]] = {}
        with self.reading() as connection:
            for row in connection.execute(forms):
                by_id.setdefault(row.workload_id, []).append(TvmForm(row.tvm_version, row.module, row.structural_hash))
            rows = connection.execute(select(workload).where(wanted))
            return {row.digest: to_workload(row, by_id.get(row.id, ())) for row in rows}

    def sessions(
        self, *, device_key: str | None = None, capture_key: str | None = None, limit: int | None = None
    ) -> list[SessionRecord]:
        """See `Reader.sessions`."""
        query = SESSIONS.order_by(session.c.id.desc()).limit(limit)
        if device_key is not None:
            query = query.where(device.c.key == device_key)
        if capture_key is not None:
            query = query.where(session.c.capture_key == capture_key)
        with self.reading() as connection:
            return [to_session(row) for row in connection.execute(query)]

    def origin(self, record: Record) -> TrialOrigin:
        """See `Reader.origin`."""
        return TrialOrigin(self.name, record.session_id, record.number)

    def of_layer(self, record: Record, index: int) -> Record:
        """See `Reader.of_layer`: this database is its only layer."""
        return record

    def stale(self) -> ColumnElement[bool]:
        """Return the condition that the installed TVM is known not to apply a trial's schedule."""
        return is_stale()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that only reads, for the modules of this package."""
        with translated(self.name), self._engine.begin() as connection:
            yield connection

    def _first_of(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime,
        kinds: ColumnElement[bool],
        order: Sequence[ColumnElement[Any]],
        fits: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> dict[str, Record]:
        ranked = _of_device(select(trial.c.id), device_key, runtime)
        ranked = ranked.where(trial.c.workload_id == workload.c.id, trial.c.state == TrialState.OK, kinds)
        ranked = ranked.where(~self.stale(), ~is_superseded()).order_by(*order)
        with self.reading() as connection:
            chosen = _first(connection, ranked, workload_ids) if fits is None else []
            if fits is not None:
                # As far down each workload's ranking as it takes.
                ranked = ranked.add_columns(trial.c.needs)
                for digest in workload_ids:
                    rows = connection.execute(ranked.where(workload.c.digest == digest))
                    chosen += next(([row.id] for row in rows if fits(row.needs)), [])
            found: dict[str, Record] = {}
            for some in _batches(chosen):
                rows = connection.execute(RECORDS.where(trial.c.id.in_(some)))
                found |= {row.workload: to_record(row) for row in rows}
            return found


def _first(connection: Connection, ranked: Select[Any], workload_ids: Collection[str]) -> list[int]:
    """Return the first trial of each workload's ranking: one short walk down the index each, all in one statement."""
    first = ranked.limit(1).correlate(workload).scalar_subquery()
    query = select(first)
    return [
        found
        for some in _batches(workload_ids)
        for found in connection.execute(query.where(workload.c.digest.in_(some))).scalars()
        if found is not None
    ]


def _batches(values: Collection[T]) -> Iterator[list[T]]:
    """Yield the values in batches that every database accepts in one statement."""
    whole = list(values)
    for start in range(0, len(whole), _AT_ONCE):
        yield whole[start : start + _AT_ONCE]


def _of_device(query: Select[Any], device_key: str, runtime: Runtime) -> Select[Any]:
    """Return ``query`` on the trial table, narrowed to one device and one way of measuring."""
    device_id = select(device.c.id).where(device.c.key == device_key).scalar_subquery()
    return query.where(trial.c.device_id == device_id, trial.c.runtime == runtime)


def is_stale() -> ColumnElement[bool]:
    """Return the condition that the installed TVM does not apply a trial's schedule; see `SqlReader.stale`."""
    return (
        select(replay.c.workload_id)
        .where(
            replay.c.workload_id == trial.c.workload_id,
            replay.c.schedule_id == trial.c.schedule_id,
            replay.c.tvm_version == installed_tvm(),
            replay.c.status == ReplayStatus.STALE,
        )
        .exists()
    )


def is_superseded() -> ColumnElement[bool]:
    """Return the condition that a later trial replaces this one, since its schedule was measured again.

    One that failed replaces it where it ran another program: the code generator has changed since.
    """
    later = trial.alias("later")
    # A lost device may have had a cause outside the program.
    failed = [state for state in TrialState if state.fault and state is not TrialState.DEVICE_LOST]
    return (
        select(later.c.id)
        .where(
            later.c.repeat,
            later.c.schedule_id == trial.c.schedule_id,
            later.c.workload_id == trial.c.workload_id,
            later.c.device_id == trial.c.device_id,
            later.c.runtime == trial.c.runtime,
            or_(
                later.c.state == TrialState.OK,
                and_(later.c.state.in_(failed), later.c.program_digest != trial.c.program_digest),
            ),
            or_(later.c.started > trial.c.started, and_(later.c.started == trial.c.started, later.c.id > trial.c.id)),
        )
        .correlate(trial)
        .exists()
    )


@cache
def installed_tvm() -> str:
    """Return the version of TVM that is installed, without loading it; empty where there is none."""
    try:
        return metadata.version("apache-tvm")
    except metadata.PackageNotFoundError:
        return ""
