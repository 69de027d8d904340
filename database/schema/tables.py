"""The SQL schema: SQLAlchemy's declarative models, in types that SQLite and PostgreSQL share.

A change here needs a new file in ``migrations/versions`` that makes the same change; a test compares the two. A new
member of an enumeration needs a revision as well, if an empty one: older programs then refuse the database in words
instead of failing on a value they do not know.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ...support.enums import CacheState, Runtime, TrialState
from .columns import (
    BigId,
    Compressed,
    Json,
    Member,
    Utc,
    is_indices,
    is_numbers,
    is_object,
    is_params,
    is_quantities,
    is_words,
)
from .records import AliasLevel, OpaqueKind, ReplayStatus, SessionOutcome, TrialKind

_OBJECT = Json("a JSON object", is_object)
_WORDS = Json("a JSON object of strings", is_words)
_QUANTITIES = Json("a JSON object of numbers from 0 on", is_quantities)
_NUMBERS = Json("a JSON array of numbers", is_numbers)
_INDICES = Json("a JSON array of whole numbers", is_indices)
_PARAMS = Json("a JSON array of [name, shape, dtype]", is_params)


class Base(DeclarativeBase):
    """Constraint names follow one pattern, so that a later migration can address them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double}
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Device(Base):
    """See `records.DeviceInfo`."""

    __tablename__ = "device"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(255), unique=True)
    backend: Mapped[str] = mapped_column(String(64))
    vendor: Mapped[str] = mapped_column(String(255))
    architecture: Mapped[str] = mapped_column(String(255))
    model: Mapped[str] = mapped_column(String(255))
    software: Mapped[bool]


class Workload(Base):
    """See `records.WorkloadInfo`; ``digest`` is its ``id``."""

    __tablename__ = "workload"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    params: Mapped[list[Any]] = mapped_column(_PARAMS)
    outputs: Mapped[list[int]] = mapped_column(_INDICES)
    flops: Mapped[float]
    nbytes: Mapped[int] = mapped_column(BigInteger)


class WorkloadForm(Base):
    """A workload as one version of TVM writes it: ``module`` is TVM's JSON, ``structural_hash`` its hash there."""

    __tablename__ = "workload_form"

    workload_id: Mapped[int] = mapped_column(ForeignKey("workload.id"), primary_key=True)
    tvm_version: Mapped[str] = mapped_column(String(64), primary_key=True)
    module: Mapped[str] = mapped_column(Compressed)
    structural_hash: Mapped[str] = mapped_column(String(64))


class Model(Base):
    """See `records.ModelInfo`."""

    __tablename__ = "model"

    id: Mapped[int] = mapped_column(primary_key=True)
    capture_key: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(1024))
    options: Mapped[dict[str, Any]] = mapped_column(_OBJECT)
    steps_hint: Mapped[int]


class ModelKernel(Base):
    """See `records.ModelKernel`; ``position`` is its ``order``."""

    __tablename__ = "model_kernel"

    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload_id: Mapped[int] = mapped_column(ForeignKey("workload.id"), primary_key=True)
    calls: Mapped[int]
    position: Mapped[int]


class Session(Base):
    """See `records.SessionRecord`."""

    __tablename__ = "session"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(32), unique=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id"), index=True)
    runtime: Mapped[Runtime] = mapped_column(Member(Runtime))
    driver: Mapped[str] = mapped_column(String(1024))
    adapter: Mapped[dict[str, Any]] = mapped_column(_OBJECT)
    toolchain: Mapped[dict[str, str]] = mapped_column(_WORDS)
    model: Mapped[str] = mapped_column(String(1024))
    capture_key: Mapped[str] = mapped_column(String(64), index=True)
    tier: Mapped[str] = mapped_column(String(64))
    budget: Mapped[dict[str, Any]] = mapped_column(_OBJECT)
    seed: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    outcome: Mapped[SessionOutcome] = mapped_column(Member(SessionOutcome))
    started: Mapped[datetime] = mapped_column(Utc)
    ended: Mapped[datetime | None] = mapped_column(Utc)
    note: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text, server_default="")
    cache: Mapped[CacheState] = mapped_column(Member(CacheState), server_default=CacheState.WARM.value)
    calibration: Mapped[dict[str, float]] = mapped_column(_QUANTITIES, server_default="{}")


class Schedule(Base):
    """A trace, stored once for all devices and sessions; ``digest`` is the SHA-256 of its text.

    It has a table of its own so that counting and ranking a million trials never reads past a million traces.
    """

    __tablename__ = "schedule"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    trace: Mapped[str] = mapped_column(Compressed)


class Trial(Base):
    """One attempt at a candidate.

    A row changes once, from ``running`` to its final state, and is never deleted. Only an ``abandoned`` trial may still
    get its result later.

    ``number`` counts the trials of a session from 1: with the session's ``uid`` it names a trial in every database
    that holds a copy of it.

    A ``repeat`` measures a schedule once more and takes the place of what was measured before it in every ranking.

    ``device_id`` and ``runtime`` repeat the session's, because every ranking selects by them: the first index answers
    the best record, the baselines, what was tried and the counts; the second finds what a dead session left running.
    """

    __tablename__ = "trial"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("session.id"))
    number: Mapped[int]
    workload_id: Mapped[int] = mapped_column(ForeignKey("workload.id"))
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id"))
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedule.id"))
    runtime: Mapped[Runtime] = mapped_column(Member(Runtime))
    kind: Mapped[TrialKind] = mapped_column(Member(TrialKind))
    state: Mapped[TrialState] = mapped_column(Member(TrialState))
    latency_s: Mapped[float | None]
    program_digest: Mapped[str] = mapped_column(String(64))
    needs: Mapped[dict[str, Any]] = mapped_column(_OBJECT)
    launches: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    samples_s: Mapped[list[float]] = mapped_column(_NUMBERS)
    timer: Mapped[str] = mapped_column(String(24))
    compile_s: Mapped[float]
    run_s: Mapped[float]
    verify_s: Mapped[float]
    max_error: Mapped[float | None]
    rtol: Mapped[float]
    atol: Mapped[float]
    error: Mapped[str] = mapped_column(Text)
    started: Mapped[datetime] = mapped_column(Utc)
    ended: Mapped[datetime | None] = mapped_column(Utc)
    warmup_s: Mapped[list[float]] = mapped_column(_NUMBERS, server_default="[]")
    repeat: Mapped[bool] = mapped_column(server_default=false())

    __table_args__ = (
        CheckConstraint("(state IN ('ok', 'unverified')) = (latency_s IS NOT NULL)", name="latency_iff_timed"),
        CheckConstraint("(state IN ('pending', 'running')) = (ended IS NULL)", name="ended_iff_final"),
        Index(None, "workload_id", "device_id", "runtime", "state", "latency_s", "kind"),
        Index(None, "session_id", "state"),
        UniqueConstraint("session_id", "number"),
        # Next to empty: it finds what takes an earlier trial's place. With fewer columns SQLite prefers the one above.
        Index(
            None,
            *("schedule_id", "workload_id", "device_id", "runtime", "state"),
            sqlite_where=text("repeat = 1"),
            postgresql_where=text("repeat"),
        ),
    )


class Replay(Base):
    """Whether a TVM version could apply a schedule to a workload, and the reason if not.

    ``program_digest`` is the SHA-256 of the program that it emitted then, empty where it was not emitted.
    """

    __tablename__ = "replay"

    workload_id: Mapped[int] = mapped_column(ForeignKey("workload.id"), primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedule.id"), primary_key=True)
    tvm_version: Mapped[str] = mapped_column(String(64), primary_key=True)
    status: Mapped[ReplayStatus] = mapped_column(Member(ReplayStatus))
    reason: Mapped[str] = mapped_column(Text)
    program_digest: Mapped[str] = mapped_column(String(64))
    checked: Mapped[datetime] = mapped_column(Utc)


class Lease(Base):
    """The session that tunes a workload on a device, and until when; no ``session_id`` once given back."""

    __tablename__ = "lease"

    workload_id: Mapped[int] = mapped_column(ForeignKey("workload.id"), primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id"), primary_key=True)
    runtime: Mapped[Runtime] = mapped_column(Member(Runtime), primary_key=True)
    session_id: Mapped[int | None] = mapped_column(ForeignKey("session.id"))
    until: Mapped[datetime] = mapped_column(Utc)


class Alias(Base):
    """A device whose ``level`` is called ``name`` (lower case, single spaces) is what the other columns say.

    A column that is None leaves that part as it was reported.
    """

    __tablename__ = "alias"

    level: Mapped[AliasLevel] = mapped_column(Member(AliasLevel), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    vendor: Mapped[str | None] = mapped_column(String(255))
    architecture: Mapped[str | None] = mapped_column(String(255))
    model: Mapped[str | None] = mapped_column(String(255))
    note: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(Utc)


class Opaque(Base):
    """An entry of another program's file that the installed TVM cannot read: stored unchanged, listed, never used.

    ``digest`` is the SHA-256 of ``text``, ``source`` the file's name, ``position`` its line from 1.
    """

    __tablename__ = "opaque"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[OpaqueKind] = mapped_column(Member(OpaqueKind))
    source: Mapped[str] = mapped_column(String(1024))
    position: Mapped[int]
    text: Mapped[str] = mapped_column(Compressed)
    reason: Mapped[str] = mapped_column(Text)
    added: Mapped[datetime] = mapped_column(Utc)


class ProgramShader(Base):
    """A shader of a program: ``shader_digest`` is what its facts are kept under."""

    __tablename__ = "program_shader"

    program_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shader_digest: Mapped[str] = mapped_column(String(64))


class CompiledShader(Base):
    """See `support.shader_facts.ShaderFacts`: a shader, compiled by ``compiler`` for ``chip``.

    It names neither devices nor trials: the same shader has the same facts whoever runs it.
    """

    __tablename__ = "compiled_shader"

    shader_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    compiler: Mapped[str] = mapped_column(String(255), primary_key=True)
    chip: Mapped[str] = mapped_column(String(255), primary_key=True)
    vgprs: Mapped[int]
    sgprs: Mapped[int]
    spilled_vgprs: Mapped[int]
    spilled_sgprs: Mapped[int]
    scratch_bytes: Mapped[int]
    workgroup_bytes: Mapped[int]
    waves: Mapped[int]
    instructions: Mapped[int]
    code_bytes: Mapped[int]
    latency_cycles: Mapped[int] = mapped_column(BigInteger)
    inverse_throughput_cycles: Mapped[int] = mapped_column(BigInteger)
    hot_instructions: Mapped[int | None]
    hot_multiply_adds: Mapped[int | None]


class ScheduleFeatures(Base):
    """What search knows of a workload's schedule beside its times: the JSON of an object of numbers by name.

    ``version`` is that of the set of features. They name no device: the schedule's are the same wherever it runs.
    """

    __tablename__ = "schedule_features"

    schedule_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    features: Mapped[str] = mapped_column(Compressed)


class Release(Base):
    """A release file's description of itself, in one row; empty in every other database.

    ``content`` is the SHA-256 of what it holds, whatever the file's bytes; ``settings`` how it was chosen.
    """

    __tablename__ = "release"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    created: Mapped[datetime] = mapped_column(Utc)
    content: Mapped[str] = mapped_column(String(64))
    settings: Mapped[dict[str, Any]] = mapped_column(_OBJECT)


__all__ = [
    "Alias",
    "Base",
    "CompiledShader",
    "Device",
    "Lease",
    "Model",
    "ModelKernel",
    "Opaque",
    "ProgramShader",
    "Release",
    "Replay",
    "Schedule",
    "ScheduleFeatures",
    "Session",
    "Trial",
    "Workload",
    "WorkloadForm",
]
