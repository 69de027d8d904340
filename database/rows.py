"""Between table rows and the dataclasses of `records`."""

from __future__ import annotations

import math
import statistics
from typing import Any, cast

from sqlalchemy import Row, Table, select

from ..states import TrialState
from . import schema
from .records import DeviceInfo, ModelInfo, Param, Record, SessionInfo, SessionRecord, TrialEnd, WorkloadInfo

MAX_TEXT = 8000
"""Characters kept of an error or a note: a compiler may repeat the whole shader, thousands of times over a session."""

device = cast(Table, schema.Device.__table__)
workload = cast(Table, schema.Workload.__table__)
model = cast(Table, schema.Model.__table__)
model_kernel = cast(Table, schema.ModelKernel.__table__)
session = cast(Table, schema.Session.__table__)
schedule = cast(Table, schema.Schedule.__table__)
trial = cast(Table, schema.Trial.__table__)

_DEVICE = tuple(column.label(f"device_{column.name}") for column in device.c if column.name != "id")

SESSIONS = select(session, *_DEVICE).join_from(session, device)
"""Rows for `to_session`."""

RECORDS = (
    select(
        trial,
        schedule.c.trace,
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
    """The columns of a workload."""
    return {
        "digest": info.id,
        "name": info.name,
        "text": info.text,
        "tvm_json": info.tvm_json,
        "tvm_version": info.tvm_version,
        "tvm_hash": info.tvm_hash,
        "params": [[param.name, list(param.shape), param.dtype] for param in map(Param._make, info.params)],
        "outputs": list(info.outputs),
        "flops": float(info.flops),
        "nbytes": int(info.nbytes),
    }


def to_workload(row: Row[Any]) -> WorkloadInfo:
    """The inverse of `from_workload`."""
    return WorkloadInfo(
        id=row.digest,
        name=row.name,
        text=row.text,
        tvm_json=row.tvm_json,
        tvm_version=row.tvm_version,
        tvm_hash=row.tvm_hash,
        params=tuple(Param(name, tuple(shape), dtype) for name, shape, dtype in row.params),
        outputs=tuple(row.outputs),
        flops=row.flops,
        nbytes=row.nbytes,
    )


def to_device(row: Row[Any], prefix: str = "") -> DeviceInfo:
    """The device in a row whose columns' names begin with ``prefix``."""
    names = ("key", "backend", "vendor", "architecture", "model", "software")
    return DeviceInfo(*(getattr(row, prefix + name) for name in names))


def to_model(row: Row[Any]) -> ModelInfo:
    """A row of the model table."""
    return ModelInfo(row.capture_key, row.name, row.options, row.steps_hint)


def to_session(row: Row[Any]) -> SessionRecord:
    """A row of `SESSIONS`."""
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
    )
    return SessionRecord(row.id, row.uid, info, row.outcome, row.started, row.ended, row.note)


def to_record(row: Row[Any]) -> Record:
    """A row of `RECORDS` in state `ok`."""
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
    )


def from_end(end: TrialEnd) -> dict[str, Any]:
    """The columns that ending a trial sets, but for the time.

    Samples are kept to the picosecond, far below any timer's step: the digits behind it are noise that would double
    the size.

    Raises:
        ValueError: the state is not final; or it is `ok` without samples or without a verification.
    """
    if not end.state.ended:
        raise ValueError(f"{end.state.value} is no end of a trial")
    samples = [round(sample, 12) for sample in end.samples_s]
    if not all(math.isfinite(sample) and sample >= 0 for sample in samples):
        raise ValueError(f"not durations: {end.samples_s}")
    ok = end.state is TrialState.OK
    if ok and not samples:
        raise ValueError("a trial cannot be ok without samples")
    if ok and (end.max_error is None or not math.isfinite(end.max_error)):
        raise ValueError(f"a trial cannot be ok with a largest error of {end.max_error}: it is not verified")
    # SQLite turns NaN into NULL, which would read as "never compared".
    error = math.inf if end.max_error is not None and math.isnan(end.max_error) else end.max_error
    return {
        "state": end.state,
        "latency_s": statistics.median(samples) if ok else None,
        "samples_s": samples,
        "timer": end.timer,
        "compile_s": end.compile_s,
        "run_s": end.run_s,
        "verify_s": end.verify_s,
        "max_error": error,
        "rtol": end.rtol,
        "atol": end.atol,
        "error": clean(end.error),
    }


def clean(text: str) -> str:
    """``text`` as any database takes it:

    no NUL (PostgreSQL refuses it), no lone surrogates, the middle of a long one cut.
    """
    text = text.replace("\0", "�").encode("utf-8", "replace").decode()
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"
