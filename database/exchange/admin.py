"""Administration of a database: content, integrity, and upgrade to this program's schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from ...support.enums import TrialState
from ...support.errors import DatabaseError
from ..liveness import silent_sessions
from ..queries.compiled_facts import count_facts
from ..queries.replay_status import ReleaseReplays, answers, release_replays
from ..schema.engine import connect, is_read_only, log_size, translated
from ..schema.migrate import current_revision, known_revisions
from ..schema.migrate import upgrade as migrate
from ..schema.records import ModelInfo, ReplayStatus, SessionOutcome
from ..schema.rows import device, model, session, to_model, trial, workload
from ..sql_reader import SqlReader, installed_tvm
from .integrity import row_problems, sqlite_problems, unfinished_problems
from .opaque import OpaqueCount, count_opaque
from .release import release_problems


@dataclass(frozen=True)
class DatabaseInfo:
    """What is in a database. ``path`` and ``size_bytes`` (its write-ahead log included) are None off SQLite.

    ``revision`` is None for an empty database. Where it differs from ``latest``, nothing is listed or counted.
    ``trials`` is by device and state, ``sessions`` by outcome, ``replays`` by version of TVM: what `wgtune db replay`
    found, of releases' schedules too. ``silent`` are running sessions that gave no sign of life for long, and when they
    gave the last one (UTC): the next tuner takes them for dead. ``releases`` are those that are read under this
    database. ``opaque`` is what other programs' files held that TVM could not read. ``compiled`` counts the shaders
    whose facts are known, by compiler and chip.
    """

    name: str
    path: Path | None
    size_bytes: int | None
    revision: str | None
    latest: str
    models: list[ModelInfo]
    workloads: int
    sessions: dict[SessionOutcome, int]
    silent: dict[int, datetime]
    trials: dict[str, dict[TrialState, int]]
    replays: dict[str, dict[ReplayStatus, int]]
    releases: list[ReleaseReplays]
    opaque: list[OpaqueCount]
    compiled: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Upgrade:
    """The schema revisions before an upgrade (None: the database was empty) and after it."""

    name: str
    before: str | None
    after: str


def info(url: str | None = None, *, releases: Sequence[SqlReader] = ()) -> DatabaseInfo:
    """Count the content of the database without changing it.

    ``releases`` are those that are read under it. The database stores which of their schedules TVM can apply.
    Raises DatabaseError where there is no database or it cannot be read.
    """
    with _opened(url) as (engine, name, path), translated(name), engine.begin() as connection:
        revision, latest = current_revision(connection, name), known_revisions()[-1]
        own = SqlReader(engine, name)
        counted = revision == latest
        under = releases if counted and not is_read_only(engine) else ()
        return DatabaseInfo(
            name=name,
            path=path,
            size_bytes=None if path is None else _size(path),
            revision=revision,
            latest=latest,
            models=_models(connection) if counted else [],
            workloads=connection.execute(select(func.count()).select_from(workload)).scalar_one() if counted else 0,
            sessions=_sessions(connection) if counted else {},
            silent=silent_sessions(connection) if counted else {},
            trials=_trials(connection) if counted else {},
            replays=answers(connection) if counted else {},
            releases=[release_replays(own, one, installed_tvm()) for one in under],
            opaque=count_opaque(connection) if counted else [],
            compiled=count_facts(connection) if counted else {},
        )


def upgrade(url: str | None = None) -> Upgrade:
    """Upgrade the database to this program's schema. Raises DatabaseError as `Store.open` does."""
    with _opened(url) as (engine, name, _), translated(name):
        return Upgrade(name, *migrate(engine, name))


def check(url: str | None = None) -> list[str]:
    """Return the problems of the database, one sentence each; nothing where it is whole.

    Raises DatabaseError only where there is nothing to check: no file, no server, no permission, another program's.
    """
    with _opened(url) as (engine, name, path):
        if path is None:
            with translated(name):
                engine.connect().close()
        latest = known_revisions()[-1]
        problems: list[str] = []
        with _noting(problems, name), engine.begin() as connection:
            # First of all: what else is asked could run what a stranger left in the file.
            revision = current_revision(connection, name)
            if path is not None:
                problems += sqlite_problems(connection)
            if revision != latest:
                return [*problems, f"schema revision {revision or 'none'} is not {latest}: wgtune db upgrade"]
            problems += row_problems(connection)
            problems += unfinished_problems(connection)
            if path is not None:
                problems += release_problems(path, connection)
        return problems


@contextmanager
def _noting(problems: list[str], name: str) -> Iterator[None]:
    """Turn errors of the driver or of a value into problems; other errors pass."""
    try:
        with translated(name):
            yield
    except DatabaseError as error:
        if error.__cause__ is None:  # not from the driver: see `translated`
            raise
        problems.append(error.message)


@contextmanager
def _opened(url: str | None) -> Iterator[tuple[Engine, str, Path | None]]:
    engine, name, path = connect(url, create=False)
    try:
        yield engine, name, path
    finally:
        engine.dispose()


def _size(path: Path) -> int:
    return path.stat().st_size + log_size(path)


def _models(connection: Connection) -> list[ModelInfo]:
    return [to_model(row) for row in connection.execute(select(model).order_by(model.c.id))]


def _sessions(connection: Connection) -> dict[SessionOutcome, int]:
    query = select(session.c.outcome, func.count()).group_by(session.c.outcome)
    return {row[0]: row[1] for row in connection.execute(query)}


def _trials(connection: Connection) -> dict[str, dict[TrialState, int]]:
    query = (
        select(device.c.key, trial.c.state, func.count())
        .join_from(trial, device, trial.c.device_id == device.c.id)
        .group_by(device.c.key, trial.c.state)
        .order_by(device.c.key)
    )
    found: dict[str, dict[TrialState, int]] = {}
    for key, state, count in connection.execute(query):
        found.setdefault(key, {})[state] = count
    return found
