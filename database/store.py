"""The store: every question and every change that the rest of wgtune has for the database."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, func, insert, select, update

from ..errors import DatabaseError
from ..states import TrialState
from .engine import check_file, display, make_engine, parse_url, sqlite_path, translated, writing
from .processes import is_alive
from .records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Record,
    Runtime,
    SessionInfo,
    SessionOutcome,
    SessionRecord,
    TrialEnd,
    TrialKind,
    TrialPoint,
    TrialStart,
    TrialSummary,
    WorkloadInfo,
)
from .rows import (
    RECORDS,
    SESSIONS,
    clean,
    device,
    from_end,
    from_workload,
    model,
    model_kernel,
    schedule,
    session,
    to_device,
    to_record,
    to_session,
    to_workload,
    trial,
    workload,
)
from .upgrade import upgrade


class Store:
    """One open database.

    Every method is a transaction of its own, committed when it returns; any number of processes may read, one writes
    at a time. Methods may be called from any thread. All raise DatabaseError when the database fails.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._writer = writing(engine)
        self.name = name
        """How messages call this database: a path, or a URL without its password."""
        self._workload_ids: dict[str, int] = {}
        self._sessions: dict[int, tuple[int, Runtime]] = {}

    @classmethod
    def open(cls, url: str | None = None, *, create: bool = True) -> Store:
        """Opens the database at ``url``: a SQLAlchemy URL, the path of a SQLite file, or None for the user's own.

        A new one gets its tables, an older one is upgraded. With ``create`` false it must exist. The user's own
        folder is made when it is missing, any other must be there.

        Raises:
            DatabaseError: bad URL, missing driver, folder or file, not a database, another program's, a newer schema,
            no permission.
        """
        where = parse_url(url)
        path = sqlite_path(where)
        if path is not None:
            if url is None and create:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise DatabaseError(
                        f"the folder {path.parent} cannot be made: {error.strerror}", "name another with WGTUNE_DATA"
                    ) from None
            check_file(path, create=create)
        engine = make_engine(where)
        name = display(where)
        try:
            with translated(name):
                upgrade(engine, name)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, name)

    def close(self) -> None:
        """Closes the connections; the store answers no more."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- writing

    def add_workloads(self, workloads: Iterable[WorkloadInfo]) -> None:
        """Adds the workloads that are not there yet; of the others, TVM's form is brought to the one given."""
        rows = {info.id: from_workload(info) for info in workloads}
        with self._write() as connection:
            known = dict(
                connection.execute(
                    select(workload.c.digest, workload.c.tvm_version).where(workload.c.digest.in_(rows))
                ).all()
            )
            for digest, row in rows.items():
                if digest not in known:
                    connection.execute(insert(workload).values(**row))
                elif known[digest] != row["tvm_version"]:
                    changed = {key: row[key] for key in ("tvm_json", "tvm_version", "tvm_hash")}
                    connection.execute(update(workload).where(workload.c.digest == digest).values(**changed))

    def add_model(self, info: ModelInfo, kernels: Iterable[ModelKernel]) -> None:
        """Adds a captured model and its kernels, whose workloads must be there; does nothing when the capture is known.

        Raises:
            DatabaseError: a kernel's workload was not added before.
        """
        with self._write() as connection:
            if connection.execute(select(model.c.id).where(model.c.capture_key == info.capture_key)).first():
                return
            model_id = _insert(
                connection,
                model,
                capture_key=info.capture_key,
                name=info.name,
                options=dict(info.options),
                steps_hint=info.steps_hint,
            )
            for kernel in kernels:
                connection.execute(
                    insert(model_kernel).values(
                        model_id=model_id,
                        stage=kernel.stage,
                        workload_id=self._workload_id(connection, kernel.workload_id),
                        calls=kernel.calls,
                        position=kernel.order,
                    )
                )

    def begin_session(self, info: SessionInfo) -> int:
        """Opens a session, `running`, and returns its id. Its device is added when it is new."""
        with self._write() as connection:
            return _insert(
                connection,
                session,
                uid=uuid.uuid4().hex,
                device_id=_upsert_device(connection, info.device),
                runtime=info.runtime,
                driver=info.driver,
                adapter=dict(info.adapter),
                toolchain=dict(info.toolchain),
                model=info.model,
                capture_key=info.capture_key,
                tier=info.tier,
                budget=dict(info.budget),
                seed=info.seed,
                reason=info.reason,
                host=info.host,
                pid=info.pid,
                outcome=SessionOutcome.RUNNING,
                started=_now(),
                ended=None,
                note="",
            )

    def end_session(self, session_id: int, outcome: SessionOutcome, note: str = "") -> None:
        """Closes a session; trials that it left running become `abandoned`.

        Raises:
            DatabaseError: there is no such session, or it has ended.
        """
        if outcome is SessionOutcome.RUNNING:
            raise ValueError("a session does not end as running")
        with self._write() as connection:
            found = connection.execute(select(session.c.outcome).where(session.c.id == session_id)).scalar()
            if found is not SessionOutcome.RUNNING:
                state = "does not exist" if found is None else f"has ended already, as {found.value}"
                raise DatabaseError(f"{self.name}: session {session_id} {state}")
            _close_sessions(connection, [session_id], outcome, clean(note))

    def begin_trial(self, start: TrialStart) -> int:
        """Commits a `running` trial and returns its id.

        Raises:
            DatabaseError: the session or the workload is not in the database.
        """
        with self._write() as connection:
            device_id, runtime = self._session(connection, start.session_id)
            return _insert(
                connection,
                trial,
                session_id=start.session_id,
                workload_id=self._workload_id(connection, start.workload_id),
                device_id=device_id,
                schedule_id=_schedule_id(connection, start.trace),
                runtime=runtime,
                kind=start.kind,
                state=TrialState.RUNNING,
                latency_s=None,
                program_digest=start.program_digest,
                needs=dict(start.needs),
                launches=start.launches,
                seed=start.seed,
                samples_s=[],
                timer="",
                compile_s=0.0,
                run_s=0.0,
                verify_s=0.0,
                max_error=None,
                rtol=0.0,
                atol=0.0,
                error="",
                started=_now(),
                ended=None,
            )

    def end_trial(self, trial_id: int, end: TrialEnd) -> None:
        """Commits how a trial ended.

        Raises:
            ValueError: the state is not final; or it is `ok` without samples or without a verification.
            DatabaseError: there is no such trial, or it has ended already.
        """
        values = from_end(end) | {"ended": _now()}
        with self._write() as connection:
            changed = connection.execute(
                update(trial).where(trial.c.id == trial_id, trial.c.state == TrialState.RUNNING).values(**values)
            ).rowcount
            if changed != 1:
                found = connection.execute(select(trial.c.state).where(trial.c.id == trial_id)).scalar()
                state = "does not exist" if found is None else f"has ended already, as {found.value}"
                raise DatabaseError(f"{self.name}: trial {trial_id} {state}")

    def abandon_dead(self, host: str) -> int:
        """Closes the sessions that processes of ``host`` (this machine) left behind when they were killed.

        Their running trials become `abandoned`, the sessions `killed`. Returns how many trials that were.
        """
        with self._write() as connection:
            running = connection.execute(
                select(session.c.id, session.c.pid, session.c.started).where(
                    session.c.outcome == SessionOutcome.RUNNING, session.c.host == host
                )
            ).all()
            dead = [row.id for row in running if not is_alive(row.pid, row.started)]
            return _close_sessions(connection, dead, SessionOutcome.KILLED, "its process was found dead")

    # ---- trials

    def best(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime = Runtime.WGPU,
        *,
        fits: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> dict[str, Record]:
        """The verified trial of lowest median latency of each workload; the older one of equals. Baselines count.

        ``fits`` receives a record's ``needs`` and says whether it may be used, as when a tier grants less than the
        device. Workloads without such a trial are left out.
        """
        return self._fastest(device_key, workload_ids, runtime, None, fits)

    def baselines(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> dict[str, Record]:
        """The best verified baseline of each workload that has one."""
        return self._fastest(device_key, workload_ids, runtime, TrialKind.BASELINE, None)

    def tried(self, device_key: str, workload_id: str, runtime: Runtime = Runtime.WGPU) -> list[TrialSummary]:
        """Every trial of the workload that ended, oldest first, except abandoned ones: of those nothing is known."""
        columns = (trial.c.id, trial.c.kind, trial.c.state, trial.c.program_digest, schedule.c.trace, trial.c.latency_s)
        query = (
            _of_device(select(*columns).join_from(trial, schedule), device_key, runtime)
            .join(workload, workload.c.id == trial.c.workload_id)
            .where(workload.c.digest == workload_id, trial.c.ended.is_not(None), trial.c.state != TrialState.ABANDONED)
            .order_by(trial.c.id)
        )
        with self._read() as connection:
            return [TrialSummary(*row) for row in connection.execute(query)]

    def counts(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> dict[str, dict[TrialState, int]]:
        """How many trials each workload has in each state; states and workloads without any are left out."""
        query = (
            _of_device(select(workload.c.digest, trial.c.state, func.count()).select_from(trial), device_key, runtime)
            .join(workload, workload.c.id == trial.c.workload_id)
            .where(workload.c.digest.in_(workload_ids))
            .group_by(workload.c.digest, trial.c.state)
        )
        found: dict[str, dict[TrialState, int]] = {}
        with self._read() as connection:
            for digest, state, count in connection.execute(query):
                found.setdefault(digest, {})[state] = count
        return found

    def history(
        self, device_key: str, workload_ids: Collection[str], runtime: Runtime = Runtime.WGPU
    ) -> list[TrialPoint]:
        """Every ended trial of the workloads, abandoned ones too, in the order in which they ended."""
        columns = (workload.c.digest, trial.c.session_id, trial.c.state, trial.c.latency_s, trial.c.ended)
        query = (
            _of_device(select(*columns).select_from(trial), device_key, runtime)
            .join(workload, workload.c.id == trial.c.workload_id)
            .where(workload.c.digest.in_(workload_ids), trial.c.ended.is_not(None))
            .order_by(trial.c.ended, trial.c.id)
        )
        with self._read() as connection:
            return [TrialPoint(*row) for row in connection.execute(query)]

    # ---- what there is

    def devices(self) -> list[DeviceInfo]:
        """Every device that had a session, by key."""
        with self._read() as connection:
            return [to_device(row) for row in connection.execute(select(device).order_by(device.c.key))]

    def models(self) -> list[ModelInfo]:
        """Every captured model, oldest first."""
        with self._read() as connection:
            return [
                ModelInfo(row.capture_key, row.name, row.options, row.steps_hint)
                for row in connection.execute(select(model).order_by(model.c.id))
            ]

    def model_kernels(self, capture_key: str) -> list[ModelKernel]:
        """The model's kernels per stage, in order; empty for an unknown model."""
        query = (
            select(model_kernel.c.stage, workload.c.digest, model_kernel.c.calls, model_kernel.c.position)
            .join_from(model_kernel, model)
            .join(workload, workload.c.id == model_kernel.c.workload_id)
            .where(model.c.capture_key == capture_key)
            .order_by(model_kernel.c.position, model_kernel.c.stage)
        )
        with self._read() as connection:
            return [ModelKernel(*row) for row in connection.execute(query)]

    def workloads(self, workload_ids: Collection[str]) -> dict[str, WorkloadInfo]:
        """The workloads by id; unknown ids are left out."""
        query = select(workload).where(workload.c.digest.in_(workload_ids))
        with self._read() as connection:
            return {row.digest: to_workload(row) for row in connection.execute(query)}

    def sessions(
        self, *, device_key: str | None = None, capture_key: str | None = None, limit: int | None = None
    ) -> list[SessionRecord]:
        """Sessions, the most recent first; of one device or one model where given."""
        query = SESSIONS.order_by(session.c.id.desc()).limit(limit)
        if device_key is not None:
            query = query.where(device.c.key == device_key)
        if capture_key is not None:
            query = query.where(session.c.capture_key == capture_key)
        with self._read() as connection:
            return [to_session(row) for row in connection.execute(query)]

    # ---- inside

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with translated(self.name), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with translated(self.name), self._writer.begin() as connection:
            yield connection

    def _workload_id(self, connection: Connection, digest: str) -> int:
        if digest not in self._workload_ids:
            found = connection.execute(select(workload.c.id).where(workload.c.digest == digest)).scalar()
            if found is None:
                raise DatabaseError(f"{self.name}: there is no workload {digest}")
            self._workload_ids[digest] = found
        return self._workload_ids[digest]

    def _session(self, connection: Connection, session_id: int) -> tuple[int, Runtime]:
        """The session's device and runtime."""
        if session_id not in self._sessions:
            query = select(session.c.device_id, session.c.runtime).where(session.c.id == session_id)
            found = connection.execute(query).first()
            if found is None:
                raise DatabaseError(f"{self.name}: there is no session {session_id}")
            self._sessions[session_id] = (found.device_id, found.runtime)
        return self._sessions[session_id]

    def _fastest(
        self,
        device_key: str,
        workload_ids: Collection[str],
        runtime: Runtime,
        kind: TrialKind | None,
        fits: Callable[[Mapping[str, Any]], bool] | None,
    ) -> dict[str, Record]:
        ranked = _of_device(select(trial.c.id, trial.c.needs), device_key, runtime)
        ranked = ranked.join(workload, workload.c.id == trial.c.workload_id)
        ranked = ranked.where(trial.c.state == TrialState.OK).order_by(trial.c.latency_s, trial.c.id)
        if kind is not None:
            ranked = ranked.where(trial.c.kind == kind)
        if fits is None:
            ranked = ranked.limit(1)
        with self._read() as connection:
            # One short walk down the index per workload: a window over all of them would visit every trial.
            chosen = []
            for digest in workload_ids:
                rows = connection.execute(ranked.where(workload.c.digest == digest))
                chosen += next(([row.id] for row in rows if fits is None or fits(row.needs)), [])
            query = RECORDS.where(trial.c.id.in_(chosen))
            return {row.workload: to_record(row) for row in connection.execute(query)}


def _of_device(query: Select[Any], device_key: str, runtime: Runtime) -> Select[Any]:
    """``query`` on the trial table, narrowed to one device and one way of measuring."""
    device_id = select(device.c.id).where(device.c.key == device_key).scalar_subquery()
    return query.where(trial.c.device_id == device_id, trial.c.runtime == runtime)


def _insert(connection: Connection, table: Table, **values: Any) -> int:
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _upsert_device(connection: Connection, info: DeviceInfo) -> int:
    # The key says which GPU it is; the rest describes it, and a later driver or a later wgtune may describe it better.
    found = connection.execute(select(device).where(device.c.key == info.key)).first()
    if found is None:
        return _insert(connection, device, **asdict(info))
    if to_device(found) != info:
        connection.execute(update(device).where(device.c.id == found.id).values(**asdict(info)))
    return int(found.id)


def _schedule_id(connection: Connection, trace: str) -> int:
    digest = hashlib.sha256(trace.encode()).hexdigest()
    found = connection.execute(select(schedule.c.id).where(schedule.c.digest == digest)).scalar()
    return found if found is not None else _insert(connection, schedule, digest=digest, trace=trace)


def _close_sessions(connection: Connection, ids: list[int], outcome: SessionOutcome, note: str) -> int:
    """Ends the sessions and abandons what they left running; returns how many trials that were."""
    now = _now()
    connection.execute(update(session).where(session.c.id.in_(ids)).values(outcome=outcome, ended=now, note=note))
    return connection.execute(
        update(trial)
        .where(trial.c.session_id.in_(ids), trial.c.state == TrialState.RUNNING)
        .values(
            state=TrialState.ABANDONED, ended=now, error=f"the session ended ({outcome.value}) while it was running"
        )
    ).rowcount


def _now() -> datetime:
    return datetime.now(timezone.utc)
