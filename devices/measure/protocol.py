"""Measure jobs and measurements as JSON values, for the messages between a worker and its child process."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...support.enums import CacheState, TrialState
from ..program import program_from_json
from .job import MeasureJob, Measurement, Sampling


def job_to_json(job: MeasureJob) -> dict[str, Any]:
    """A job as JSON values; the case's path becomes absolute."""
    return {
        "program": job.program.to_json(),
        "case": str(job.case.absolute()),
        "rtol": job.rtol,
        "atol": job.atol,
        "floor_s": job.floor_s,
        "sampling": {**asdict(job.sampling), "cache": job.sampling.cache.value},
        "upcoming": job.upcoming.to_json() if job.upcoming else None,
    }


def job_from_json(data: dict[str, Any]) -> MeasureJob:
    """The inverse of `job_to_json`."""
    return MeasureJob(
        **{
            **data,
            "program": program_from_json(data["program"]),
            "case": Path(data["case"]),
            "sampling": Sampling(**{**data["sampling"], "cache": CacheState(data["sampling"]["cache"])}),
            "upcoming": program_from_json(data["upcoming"]) if data.get("upcoming") else None,
        }
    )


def measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    """A measurement as JSON values."""
    return {
        **asdict(measurement),
        "state": measurement.state.value,
        "samples_s": list(measurement.samples_s),
        "warmup_s": list(measurement.warmup_s),
    }


def measurement_from_json(data: dict[str, Any]) -> Measurement:
    """The inverse of `measurement_to_json`; raises KeyError, TypeError or ValueError on data of another shape."""
    return Measurement(
        **{
            **data,
            "state": TrialState(data["state"]),
            "samples_s": _seconds(data["samples_s"]),
            "warmup_s": _seconds(data.get("warmup_s", ())),
            **dict(zip(_SPENT, _seconds(data[name] for name in _SPENT), strict=True)),
        }
    )


_SPENT = ("compile_s", "run_s", "verify_s")


def _seconds(values: Any) -> tuple[float, ...]:
    seconds = tuple(float(value) for value in values)
    if not all(math.isfinite(value) and value >= 0 for value in seconds):
        raise ValueError(f"not durations: {seconds}")
    return seconds
