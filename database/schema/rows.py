"""Conversions between table rows and the dataclasses of `records`."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from sqlalchemy import Row, Table, select

from ...support.enums import TrialState
from ...support.hashing import digest_of
from ...support.shader_facts import ShaderFacts
from . import tables as schema
from .columns import BadValue, shown
from .records import (
    DeviceInfo,
    ModelInfo,
    ModelKernel,
    Param,
    Record,
    SessionInfo,
    SessionRecord,
    TrialEnd,
    TrialPoint,
    TrialStart,
    TrialSummary,
    TvmForm,
    WorkloadInfo,
)

MAX_TEXT = 8000
"""Characters kept of an error or a note: a compiler may repeat the whole shader, thousands of times over a session."""

device = cast(Table, schema.Device.__table__)
workload = cast(Table, schema.Workload.__table__)
model = cast(Table, schema.Model.__table__)
model_kernel = cast(Table, schema.ModelKernel.__table__)
session = cast(Table, schema.Session.__table__)
schedule = cast(Table, schema.Schedule.__table__)
trial = cast(Table, schema.Trial.__table__)
workload_form = cast(Table, schema.WorkloadForm.__table__)
replay = cast(Table, schema.Replay.__table__)
lease = cast(Table, schema.Lease.__table__)
alias = cast(Table, schema.Alias.__table__)
opaque = cast(Table, schema.Opaque.__table__)
release = cast(Table, schema.Release.__table__)
program_shader = cast(Table, schema.ProgramShader.__table__)
compiled_shader = cast(Table, schema.CompiledShader.__table__)
schedule_features = cast(Table, schema.ScheduleFeatures.__table__)

_DEVICE = tuple(column.label(f"device_{column.name}") for column in device.c if column.name != "id")

SESSIONS = select(session, *_DEVICE).join_from(session, device)
"""Rows for `to_session`."""

RECORDS = (
    select(
        trial,
        schedule.c.trace,
        schedule.c.digest.label("schedule_digest"),
        session.c.tier,
        device.c.key.label("device"),
        workload.c.digest.label("workload"),
    )
    .join_from(trial, schedule)
    .join(session, session.c.id == trial.c.session_id)
    .join(device, device.c.id == trial.c.device_id)
    .join(workload, workload.c.id == trial.c.workload_id)
)
"""Rows for `to_record`."""


def from_workload(info: WorkloadInfo) -> dict[str, Any]:
    """Return the columns of a workload; its forms are rows of their own."""
    return {
        "digest": info.id,
        "name": info.name,
        "text": info.text,
        "params": [[param.name, list(param.shape), param.dtype] for param in map(Param._make, info.params)],
        "outputs": list(info.outputs),
        "flops": float(info.flops),
        "nbytes": int(info.nbytes),
    }


def to_workload(row: Row[Any], forms: Iterable[TvmForm]) -> WorkloadInfo:
    """The inverse of `from_workload`, with the workload's forms. Raises BadValue where the text is not its digest's."""
    check_whole(row)
    check_digest(row.text, row.digest, "workload")
    return WorkloadInfo(
        id=row.digest,
        name=row.name,
        text=row.text,
        forms=tuple(forms),
        params=tuple(Param(name, tuple(shape), dtype) for name, shape, dtype in row.params),
        outputs=tuple(row.outputs),
        flops=row.flops,
        nbytes=row.nbytes,
    )


def to_device(row: Row[Any], prefix: str = "") -> DeviceInfo:
    """Return the device in a row whose columns' names begin with ``prefix``."""
    names = ("key", "backend", "vendor", "architecture", "model", "software")
    values = [getattr(row, prefix + name) for name in names]
    if None in values:
        raise BadValue(f"device {values[0]} lacks its {names[values.index(None)]}")
    return DeviceInfo(*values)


def to_model(row: Row[Any]) -> ModelInfo:
    """Convert a row of the model table."""
    check_whole(row)
    return ModelInfo(row.capture_key, row.name, row.options, row.steps_hint)


def to_session(row: Row[Any]) -> SessionRecord:
    """Convert a row of `SESSIONS`."""
    check_whole(row, "ended")
    info = SessionInfo(
        device=to_device(row, "device_"),
        runtime=row.runtime,
        driver=row.driver,
        adapter=row.adapter,
        toolchain=row.toolchain,
        model=row.model,
        capture_key=row.capture_key,
        tier=row.tier,
        budget=row.budget,
        seed=row.seed,
        reason=row.reason,
        host=row.host,
        pid=row.pid,
        target=row.target,
        cache=row.cache,
        calibration=row.calibration,
    )
    return SessionRecord(row.id, row.uid, info, row.outcome, row.started, row.ended, row.note)


def from_session(info: SessionInfo) -> dict[str, Any]:
    """Return the columns of a session that are known when it begins, but for its device and its time."""
    return {
        "runtime": info.runtime,
        "driver": info.driver,
        "adapter": dict(info.adapter),
        "toolchain": dict(info.toolchain),
        "model": info.model,
        "capture_key": info.capture_key,
        "tier": info.tier,
        "budget": dict(info.budget),
        "seed": info.seed,
        "reason": info.reason,
        "host": info.host,
        "pid": info.pid,
        "target": info.target,
        "cache": info.cache,
        "calibration": dict(info.calibration),
    }


def to_record(row: Row[Any]) -> Record:
    """Convert a row of `RECORDS` in state `ok`.

    Raises BadValue where the trace is not its digest's, or the time not the median of its samples.
    """
    check_whole(row)
    check_latency(row.state, row.samples_s, row.latency_s)
    check_digest(row.trace, row.schedule_digest, "trace")
    return Record(
        trial_id=row.id,
        session_id=row.session_id,
        workload_id=row.workload,
        device_key=row.device,
        runtime=row.runtime,
        kind=row.kind,
        tier=row.tier,
        latency_s=row.latency_s,
        samples_s=tuple(row.samples_s),
        timer=row.timer,
        trace=row.trace,
        program_digest=row.program_digest,
        needs=row.needs,
        launches=row.launches,
        max_error=row.max_error,
        rtol=row.rtol,
        atol=row.atol,
        created=row.ended,
        number=row.number,
        compile_s=row.compile_s,
    )


def to_summary(row: Row[Any]) -> TrialSummary:
    """Convert a row of a summary's columns and the schedule's digest."""
    check_whole(row, "latency_s")
    check_digest(row.trace, row.digest, "trace")
    return TrialSummary(*tuple(row)[:-1])


def to_point(row: Row[Any]) -> TrialPoint:
    """Convert a row of a point's columns."""
    check_whole(row, "latency_s")
    return TrialPoint(*tuple(row))


def to_model_kernel(row: Any) -> ModelKernel:
    """Convert a row of a model kernel's columns."""
    check_whole(row)
    return ModelKernel(*tuple(row))


def from_unfinished(start: TrialStart) -> dict[str, Any]:
    """Return the columns of a trial that has begun, but for its time and what it belongs to."""
    return {
        "kind": start.kind,
        "state": TrialState.RUNNING,
        "latency_s": None,
        "program_digest": start.program_digest,
        "needs": dict(start.needs),
        "launches": start.launches,
        "seed": start.seed,
        "samples_s": [],
        "warmup_s": [],
        "repeat": start.repeat,
        "timer": "",
        "compile_s": 0.0,
        "run_s": 0.0,
        "verify_s": 0.0,
        "max_error": None,
        "rtol": 0.0,
        "atol": 0.0,
        "error": "",
        "ended": None,
    }


def from_end(end: TrialEnd) -> dict[str, Any]:
    """Return the columns that ending a trial sets, but for the time.

    Samples are kept to the picosecond, far below any timer's step: the digits behind it are noise that would double
    the size.

    Raises:
        ValueError: the state is not final; or it has a latency by its state but no samples; it is `ok` without a
            verification.
    """
    if not end.state.ended:
        raise ValueError(f"{end.state.value} is not a final state of a trial")
    samples = [round(sample, 12) for sample in end.samples_s]
    if not all(math.isfinite(sample) and sample >= 0 for sample in (*samples, *end.warmup_s)):
        raise ValueError(f"not durations: {end.samples_s}, {end.warmup_s}")
    ok = end.state is TrialState.OK
    if end.state.timed and not samples:
        raise ValueError(f"a trial cannot be {end.state.value} without samples")
    if ok and (end.max_error is None or not math.isfinite(end.max_error)):
        raise ValueError(f"a trial cannot be ok with a largest error of {end.max_error}: it is not verified")
    # SQLite turns NaN into NULL, which would read as "never compared".
    error = math.inf if end.max_error is not None and math.isnan(end.max_error) else end.max_error
    return {
        "state": end.state,
        "latency_s": statistics.median(samples) if end.state.timed else None,
        "samples_s": samples,
        "warmup_s": [round(sample, 12) for sample in end.warmup_s],
        "timer": end.timer,
        "compile_s": end.compile_s,
        "run_s": end.run_s,
        "verify_s": end.verify_s,
        "max_error": error,
        "rtol": end.rtol,
        "atol": end.atol,
        "error": clean(end.error),
    }


def check_whole(row: Row[Any], *optional: str) -> None:
    """Raise BadValue where a column is NULL that is not ``optional``: damage may leave one in any column."""
    if None in row:
        for name, value in row._mapping.items():
            if value is None and name not in optional:
                raise BadValue(f"{name} is missing")


def check_latency(state: TrialState, samples_s: Sequence[float], latency_s: float | None) -> None:
    """Raise BadValue where a trial with a time has no samples, or another time than their median."""
    if not state.timed:
        return
    if not samples_s:
        raise BadValue(f"it is {state.value}, but has no samples")
    if latency_s is None or not math.isclose(latency_s, statistics.median(samples_s), rel_tol=1e-9):
        raise BadValue(f"its latency of {latency_s} s is not the median of its samples")


def check_digest(text: str, digest: str, what: str) -> None:
    """Raise BadValue where ``digest`` is not the SHA-256 of the text."""
    if digest_of(text) != digest:
        raise BadValue(f"the {what} {digest[:12]}… is not what was written: its SHA-256 differs")


def check_facts(values: Mapping[str, Any]) -> None:
    """Raise BadValue where a compiled shader's facts are missing, negative, or contradict each other."""
    hot = values["hot_instructions"], values["hot_multiply_adds"]
    for field in fields(ShaderFacts):
        value = values[field.name]
        if value is None and field.name not in ("hot_instructions", "hot_multiply_adds"):
            raise BadValue(f"{field.name} is missing")
        if value is not None and value < 0:
            raise BadValue(f"its {field.name} are {value}")
    if (hot[0] is None) != (hot[1] is None) or (hot[0] is not None and hot[0] < hot[1]):
        raise BadValue(f"its hottest block has {hot[1]} multiply-adds of {hot[0]} instructions")


def from_features(start: TrialStart) -> dict[str, Any]:
    """Return the row of the features of a trial's schedule."""
    return {
        "schedule_digest": digest_of(start.trace),
        "workload_digest": start.workload_id,
        "version": start.features_version,
        "features": json.dumps(dict(start.features), sort_keys=True, separators=(",", ":")),
    }


def to_features(text: str) -> dict[str, float]:
    """Return the features in their JSON. Raises BadValue where that is no object of finite numbers."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"features are not JSON: {error}") from None
    numbers = isinstance(found, dict) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in found.values()
    )
    if not numbers:
        raise BadValue(f"{shown(found)} are no features: finite numbers by name")
    return dict(found)


def clean(text: str) -> str:
    """Return ``text`` in a form that every database accepts.

    NUL, which PostgreSQL refuses, and lone surrogates are replaced. The middle of a long text is cut.
    """
    text = text.replace("\0", "�").encode("utf-8", "replace").decode()
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"
