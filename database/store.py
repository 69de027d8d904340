"""The store: opening a database, and every change that is made to it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, Engine, Table, insert, select, update

from ..errors import DatabaseError
from ..states import TrialState
from .engine import connect, translated, writing
from .processes import is_alive
from .reader import Reader
from .records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Runtime,
    SessionInfo,
    SessionOutcome,
    TrialEnd,
    TrialStart,
    WorkloadInfo,
)
from .rows import (
    clean,
    device,
    from_end,
    from_workload,
    model,
    model_kernel,
    schedule,
    session,
    to_device,
    trial,
    workload,
)
from .upgrade import upgrade


class Store(Reader):
    """One open database.

    Every method is a transaction of its own, committed when it returns; any number of processes may read, one writes
    at a time. Methods may be called from any thread. All raise DatabaseError when the database fails.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        self._writer = writing(engine)
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
        engine, name, _ = connect(url, create=create)
        try:
            with translated(name):
                upgrade(engine, name)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, name)

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
