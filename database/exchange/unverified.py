"""Results of stock MetaSchedule: times that nobody verified, and failures."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from ...support.enums import Runtime, TrialState
from ..liveness import host_name
from ..schema.records import DeviceInfo, SessionInfo, SessionOutcome, TrialEnd, TrialKind, TrialStart, WorkloadInfo
from ..schema.rows import device, schedule, trial, workload
from ..sql_reader import SqlReader, installed_tvm
from ..store import Store

FAILED_S = 1e9
"""Times from this many seconds on mean failure: MetaSchedule writes 1e10 where a candidate did not run."""

_RUNTIMES = {"cuda": Runtime.TVM_CUDA, "metal": Runtime.TVM_METAL}


def stock_runtime(kind: str) -> Runtime:
    """The way of measuring that stock MetaSchedule's times for a target of ``kind``, as in ``cuda``, are kept under.

    It measures through TVM's own runtimes, on ``vulkan`` and ``webgpu`` too: never the WGSL that a browser gets.
    """
    return _RUNTIMES.get(kind, Runtime.TVM)


class ForeignTrials:
    """Adds trials of one device that another program made, in a session of this process for each target and runtime.

    ``described`` is the device as it is known, else it is made of its key; ``reason`` is the sessions'.
    """

    def __init__(self, store: Store, device_key: str, reason: str, described: DeviceInfo | None = None) -> None:
        backend, _, model = device_key.partition(":")
        self._device = described or DeviceInfo(device_key, backend, "", "", model, backend in ("cpu", "llvm"))
        self._store = store
        self._reason = reason
        self._sessions: dict[tuple[str, Runtime], int] = {}

    def add(
        self,
        info: WorkloadInfo,
        trace: str,
        seconds: Sequence[float],
        target: Mapping[str, Any] | None,
        runtime: Runtime,
    ) -> TrialState:
        """Store a schedule of a workload and the ``seconds`` that were booked for it; how the trial ended by these.

        ``trace`` names blocks by position, ``target`` is TVM's own description. Raises DatabaseError.
        """
        self._store.add_workloads([info])
        text = "" if target is None else json.dumps(dict(target), sort_keys=True)
        end = _end(seconds)
        start = TrialStart(self._session(text, runtime), info.id, TrialKind.SEARCH, trace, "", {}, 0, 0)
        self._store.add_trial(start, end)
        return end.state

    def end(self, outcome: SessionOutcome) -> None:
        """End the sessions; raises DatabaseError."""
        while self._sessions:
            _, session = self._sessions.popitem()
            self._store.end_session(session, outcome)

    def _session(self, target: str, runtime: Runtime) -> int:
        if (target, runtime) not in self._sessions:
            info = SessionInfo(
                device=self._device,
                runtime=runtime,
                driver="",
                adapter={},
                toolchain={"python": platform.python_version(), "apache-tvm": installed_tvm()},
                model="",
                capture_key="",
                tier="",
                budget={},
                seed=0,
                reason=self._reason,
                host=host_name(),
                pid=os.getpid(),
                target=target,
            )
            self._sessions[target, runtime] = self._store.begin_session(info)
        return self._sessions[target, runtime]


def known_results(reader: SqlReader, device_key: str, workload_id: str) -> set[tuple[str, tuple[float, ...]]]:
    """Traces and samples of every trial of a workload on a device that ended, however it was measured."""
    query = (
        select(schedule.c.trace, trial.c.samples_s)
        .select_from(trial)
        .join(schedule, schedule.c.id == trial.c.schedule_id)
        .join(workload, workload.c.id == trial.c.workload_id)
        .join(device, device.c.id == trial.c.device_id)
        .where(device.c.key == device_key, workload.c.digest == workload_id, trial.c.ended.is_not(None))
    )
    with reader.reading() as connection:
        return {(trace, tuple(samples)) for trace, samples in connection.execute(query)}


def timed(seconds: Sequence[float]) -> tuple[float, ...]:
    """Return ``seconds`` where they are times, else nothing: MetaSchedule books a huge one for what did not run."""
    good = all(math.isfinite(second) and 0 <= second < FAILED_S for second in seconds)
    return tuple(seconds) if good else ()


def _end(seconds: Sequence[float]) -> TrialEnd:
    samples = timed(seconds)
    if samples:
        return TrialEnd(TrialState.UNVERIFIED, samples, timer="meta_schedule")
    return TrialEnd(TrialState.RUN_ERROR, error="stock MetaSchedule booked no time: it did not build, or did not run")
