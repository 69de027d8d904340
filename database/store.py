"""The store: opens a database, and makes every change to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, Delete, Engine, bindparam, delete, func, select, update

from ..support.enums import TrialState
from ..support.errors import DatabaseError
from .device_identity import Alias, check_alias, normalized
from .liveness import is_alive, silent_sessions
from .schema.engine import connect, memory_engine, translated, writing
from .schema.migrate import upgrade
from .schema.records import (
    AliasLevel,
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    ReplayStatus,
    Runtime,
    SessionInfo,
    SessionOutcome,
    TrialEnd,
    TrialStart,
    WorkloadInfo,
    unnamed,
)
from .schema.rows import alias as alias_table
from .schema.rows import (
    clean,
    device,
    from_end,
    from_features,
    from_session,
    from_unfinished,
    from_workload,
    lease,
    model,
    model_kernel,
    replay,
    schedule_features,
    session,
    to_device,
    trial,
    workload,
    workload_form,
)
from .sql_helpers import find_or_insert, insert_missing, insert_row, matching, schedule_id
from .sql_reader import SqlReader

# Made once: a session of thousands of trials runs these two or three times for each.
_LOCK_SESSION = select(session.c.id).where(session.c.id == bindparam("wanted")).with_for_update(key_share=True)
_LAST_NUMBER = select(func.max(trial.c.number)).where(trial.c.session_id == bindparam("wanted"))
_NAME = (
    update(workload)
    .where(workload.c.digest == bindparam("of"), workload.c.name == bindparam("unknown"))
    .values(name=bindparam("told"))
)
_END = update(trial).where(
    trial.c.id == bindparam("trial_id"), trial.c.state.in_([TrialState.RUNNING, TrialState.ABANDONED])
)


class Store(SqlReader):
    """One open database.

    Every method is a transaction of its own, committed when it returns; any number of processes may read, one writes
    at a time. Methods may be called from any thread. All raise DatabaseError when the database fails.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        self._writer = writing(engine)
        self._durable = writing(engine, durable=True)
        self._workload_ids: dict[str, int] = {}
        self._sessions: dict[int, tuple[int, Runtime]] = {}

    @classmethod
    def open(cls, url: str | None = None, *, create: bool = True) -> Store:
        """Open the database at ``url``: a SQLAlchemy URL, the path of a SQLite file, or None for the user's own.

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

    @classmethod
    def memory(cls) -> Store:
        """Create a database in this process's memory, which is lost when it is closed.

        Threads take turns, since it has one connection.
        """
        engine, name = memory_engine(), "the database in memory"
        upgrade(engine, name)
        return cls(engine, name)

    def add_workloads(self, workloads: Iterable[WorkloadInfo]) -> None:
        """Add new workloads, and the missing TVM forms and names of known ones.

        Replays that were stale under a TVM version whose form is new are deleted, so that they are tried again.
        """
        # In one order, lest two writers on PostgreSQL wait for each other's rows.
        infos = sorted(workloads, key=lambda info: info.id)
        with self.writing() as connection:
            insert_missing(connection, workload, [from_workload(info) for info in infos])
            named = [
                {"of": info.id, "unknown": unnamed(info.id), "told": info.name}
                for info in infos
                if info.name != unnamed(info.id)
            ]
            if named:
                connection.execute(_NAME, named)
            forms = [
                {"workload_id": self._workload_id(connection, info.id), **form._asdict()}
                for info in infos
                for form in info.forms
            ]
            fresh = _missing_forms(connection, forms)
            insert_missing(connection, workload_form, forms)
            # A new TVM form may fix stale replays: ask again.
            for match in matching([replay.c.workload_id, replay.c.tvm_version], fresh):
                connection.execute(delete(replay).where(match, replay.c.status == ReplayStatus.STALE))

    def add_model(self, info: ModelInfo, kernels: Iterable[ModelKernel]) -> None:
        """Add a captured model and its kernels, whose workloads must exist; do nothing when the capture is known.

        Raises:
            DatabaseError: a kernel's workload was not added before.
        """
        with self.writing() as connection:
            if connection.execute(select(model.c.id).where(model.c.capture_key == info.capture_key)).first():
                return
            columns = {
                "capture_key": info.capture_key,
                "name": info.name,
                "options": dict(info.options),
                "steps_hint": info.steps_hint,
            }
            model_id = find_or_insert(connection, model, "capture_key", columns)
            rows = [
                {
                    "model_id": model_id,
                    "stage": kernel.stage,
                    "workload_id": self._workload_id(connection, kernel.workload_id),
                    "calls": kernel.calls,
                    "position": kernel.order,
                }
                for kernel in sorted(kernels, key=lambda kernel: (kernel.stage, kernel.workload_id))
            ]
            insert_missing(connection, model_kernel, rows)

    def begin_session(self, info: SessionInfo) -> int:
        """Open a session in state `running` and return its id. A new device is added."""
        with self.writing() as connection:
            columns = from_session(info) | {
                "uid": uuid.uuid4().hex,
                "device_id": _upsert_device(connection, info.device),
                "outcome": SessionOutcome.RUNNING,
                "started": _now(),
                "ended": None,
                "note": "",
            }
            return insert_row(connection, session, columns)

    def add_alias(self, alias: Alias) -> None:
        """Store an alias, in place of the user's earlier one of the same level and name.

        Raises:
            UsageError: it says nothing, or something finer than its level.
        """
        values = asdict(check_alias(alias)) | {"created": _now()}
        with self.writing() as connection:
            connection.execute(_same_alias(alias.level, values["name"]))
            connection.execute(alias_table.insert(), [values])

    def remove_alias(self, level: AliasLevel, name: str) -> bool:
        """Remove an alias of the user, and return whether there was one."""
        with self.writing() as connection:
            return connection.execute(_same_alias(level, normalized(name))).rowcount > 0

    def end_session(self, session_id: int, outcome: SessionOutcome, note: str = "") -> None:
        """Close a session; its running trials become `abandoned`. A session that was closed as killed may still end.

        Raises:
            DatabaseError: there is no such session, or it has ended.
        """
        if outcome is SessionOutcome.RUNNING:
            raise ValueError("RUNNING is not a final state of a session")
        with self.writing() as connection:
            found = connection.execute(select(session.c.outcome).where(session.c.id == session_id)).scalar()
            if found not in (SessionOutcome.RUNNING, SessionOutcome.KILLED):
                state = "does not exist" if found is None else f"has ended already, as {found.value}"
                raise DatabaseError(f"{self.name}: session {session_id} {state}")
            _close_sessions(connection, [session_id], outcome, clean(note))

    def begin_trial(self, start: TrialStart) -> int:
        """Commit a `running` trial and return its id; it is on the disk before the candidate can hang the machine.

        Raises:
            DatabaseError: the session or the workload is not in the database.
        """
        unfinished = from_unfinished(start) | {"started": _now()}
        with self.writing(durable=True) as connection:
            return self._insert_trial(connection, start, unfinished)

    def end_trial(self, trial_id: int, end: TrialEnd) -> None:
        """Commit how a trial ended. An `abandoned` trial accepts its result once, however late.

        Raises:
            ValueError: the state is not final; or it has a latency by its state but no samples; or it is `ok` without
            a verification.
            DatabaseError: there is no such trial, or it has ended already.
        """
        values = from_end(end) | {"ended": _now()}
        with self.writing() as connection:
            changed = connection.execute(_END, values | {"trial_id": trial_id}).rowcount
            if changed != 1:
                found = connection.execute(select(trial.c.state).where(trial.c.id == trial_id)).scalar()
                state = "does not exist" if found is None else f"has ended already, as {found.value}"
                raise DatabaseError(f"{self.name}: trial {trial_id} {state}")

    def add_trial(self, start: TrialStart, end: TrialEnd) -> int:
        """Commit a whole trial that ran elsewhere and return its id. Raises as `begin_trial` and `end_trial`."""
        now = _now()
        ended = from_unfinished(start) | from_end(end) | {"started": now, "ended": now}
        with self.writing() as connection:
            return self._insert_trial(connection, start, ended)

    def abandon_dead(self, host: str) -> int:
        """Close the sessions of processes that were killed.

        Those of ``host``, this process's own `liveness.host_name`, are asked for; the others count as dead when they
        have been silent for long (`liveness`). Their running trials become `abandoned`, the sessions `killed`. Returns
        how many trials that were.
        """
        with self.writing() as connection:
            running = connection.execute(
                select(session.c.id, session.c.pid, session.c.started).where(
                    session.c.outcome == SessionOutcome.RUNNING, session.c.host == host
                )
            ).all()
            dead = [row.id for row in running if not is_alive(row.pid, row.started)]
            closed = _close_sessions(connection, dead, SessionOutcome.KILLED, "its process was found dead")
            judged = {row.id for row in running}
            for session_id, last in silent_sessions(connection).items():
                if session_id not in judged:
                    note = f"no sign of life since {last:%Y-%m-%d %H:%M} UTC: taken for dead"
                    closed += _close_sessions(connection, [session_id], SessionOutcome.KILLED, note)
            return closed

    @contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[Connection]:
        """A transaction that writes, for the modules of this package; committed at the end, undone by an exception.

        What is committed survives the end of every process. With ``durable`` it also survives the machine's: it is on
        the disk when the transaction is over, with everything committed before it.
        """
        writer = self._durable if durable else self._writer
        try:
            with translated(self.name), writer.begin() as connection:
                yield connection
        except BaseException:
            self._workload_ids.clear()  # of workloads that are not there after all
            raise

    def _insert_trial(self, connection: Connection, start: TrialStart, columns: dict[str, Any]) -> int:
        device_id, runtime = self._session(connection, start.session_id)
        if connection.dialect.name == "postgresql":
            # Two processes that work for one session take turns to count. On SQLite all writers do.
            connection.execute(_LOCK_SESSION, {"wanted": start.session_id})
        last = connection.execute(_LAST_NUMBER, {"wanted": start.session_id}).scalar()
        if start.features:
            insert_missing(connection, schedule_features, [from_features(start)])
        return insert_row(
            connection,
            trial,
            columns
            | {
                "session_id": start.session_id,
                "number": (last or 0) + 1,
                "workload_id": self._workload_id(connection, start.workload_id),
                "device_id": device_id,
                "schedule_id": schedule_id(connection, start.trace),
                "runtime": runtime,
            },
        )

    def _workload_id(self, connection: Connection, digest: str) -> int:
        if digest not in self._workload_ids:
            found = connection.execute(select(workload.c.id).where(workload.c.digest == digest)).scalar()
            if found is None:
                raise DatabaseError(f"{self.name}: there is no workload {digest}")
            self._workload_ids[digest] = found
        return self._workload_ids[digest]

    def _session(self, connection: Connection, session_id: int) -> tuple[int, Runtime]:
        """Return the session's device and runtime."""
        if session_id not in self._sessions:
            query = select(session.c.device_id, session.c.runtime).where(session.c.id == session_id)
            found = connection.execute(query).first()
            if found is None:
                raise DatabaseError(f"{self.name}: there is no session {session_id}")
            self._sessions[session_id] = (found.device_id, found.runtime)
        return self._sessions[session_id]


def _missing_forms(connection: Connection, forms: Iterable[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Workload id and version of TVM of the forms that the database does not have."""
    columns = (workload_form.c.workload_id, workload_form.c.tvm_version)
    wanted = {(form["workload_id"], form["tvm_version"]) for form in forms}
    for match in matching(columns, sorted(wanted)):
        wanted -= {(row.workload_id, row.tvm_version) for row in connection.execute(select(*columns).where(match))}
    return sorted(wanted)


def _same_alias(level: AliasLevel, name: str) -> Delete:
    return delete(alias_table).where(alias_table.c.level == level, alias_table.c.name == name)


def _upsert_device(connection: Connection, info: DeviceInfo) -> int:
    # The key says which GPU it is, the rest describes it: what was unknown may be filled in, nothing is written over.
    query = select(device).where(device.c.key == info.key)
    found = connection.execute(query).first()
    if found is None:
        insert_missing(connection, device, [asdict(info)])
        found = connection.execute(query).one()
    known = asdict(to_device(found))
    filled = {part: value for part, value in asdict(info).items() if known[part] == "" and value != ""}
    if filled:
        connection.execute(update(device).where(device.c.id == found.id).values(**filled))
    return int(found.id)


def _close_sessions(connection: Connection, ids: list[int], outcome: SessionOutcome, note: str) -> int:
    """End the sessions and abandons what they left running; returns how many trials that were."""
    if not ids:
        return 0
    now = _now()
    # Leases first, as whoever takes one over does: two that go the same way never wait for each other in a circle.
    connection.execute(update(lease).where(lease.c.session_id.in_(ids)).values(session_id=None))
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
