"""Jobs, programs and measurements as JSON values, for messages between processes and machines.

NaN and infinities stay Python floats, which `json` writes and reads as bare words.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..program import AnyProgram
from .job import MeasureJob, Measurement

_PROGRAM: TypeAdapter[AnyProgram] = TypeAdapter(AnyProgram)
_JOB = TypeAdapter(MeasureJob)
_MEASUREMENT = TypeAdapter(Measurement)

T = TypeVar("T")


def program_to_json(program: AnyProgram) -> dict[str, Any]:
    """Return a program as JSON values."""
    data: dict[str, Any] = _PROGRAM.dump_python(program, mode="json")
    return data


def program_from_json(data: Any) -> AnyProgram:
    """Return the inverse of `program_to_json`; raises ValueError on data of another shape."""
    return _validated(_PROGRAM, data)


def job_to_json(job: MeasureJob) -> dict[str, Any]:
    """Return a job as JSON values; the case's path becomes absolute."""
    data: dict[str, Any] = _JOB.dump_python(replace(job, case=job.case.absolute()), mode="json")
    return data


def job_from_json(data: Any) -> MeasureJob:
    """Return the inverse of `job_to_json`; raises ValueError on data of another shape."""
    return _validated(_JOB, data)


def measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as JSON values."""
    data: dict[str, Any] = _MEASUREMENT.dump_python(measurement, mode="json")
    return data


def measurement_from_json(data: Any) -> Measurement:
    """Return the inverse of `measurement_to_json`; raises ValueError on data of another shape."""
    return _validated(_MEASUREMENT, data)


def _validated(adapter: TypeAdapter[T], data: Any) -> T:
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ValueError("; ".join(faults)) from None
