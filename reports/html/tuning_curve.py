"""Tuning curve: an image's time over the number of trials."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ...database.reader import Reader
from ...support.enums import Runtime
from ..launch_counts import ModelLaunches


@dataclass(frozen=True)
class TuningCurvePoint:
    """Seconds for one batch of images, after so many ended trials and so many seconds of tuning."""

    trials: int
    elapsed_s: float
    image_s: float


def tuning_curve(
    store: Reader, launches: ModelLaunches, device_key: str, runtime: Runtime = Runtime.WGPU
) -> list[TuningCurvePoint]:
    """Return the image's time after each trial that lowered it, and after the last one; empty if nothing is measured.

    Until a kernel has its first verified time it counts with that time, so that the curve only falls. Kernels that
    never had one are left out. Time between sessions does not count.
    """
    points = store.history(device_key, launches.workload_ids, runtime)
    starts = {kept.session_id: kept.started for kept in store.sessions(device_key=device_key)}
    counts = {kernel.workload.id: kernel.total for kernel in launches.kernels}
    best: dict[str, float] = {}
    for point in points:
        if point.latency_s is not None:
            best.setdefault(point.workload_id, point.latency_s)
    if not best:
        return []
    image = sum(counts[workload_id] * seconds for workload_id, seconds in best.items())
    curve = [TuningCurvePoint(0, 0.0, image)]
    elapsed = 0.0
    last: dict[int, datetime] = {}
    for index, point in enumerate(points, 1):
        # Sessions may overlap, one device at two times in two processes: each counts from its own last trial.
        before = last.get(point.session_id, starts.get(point.session_id, point.ended))
        elapsed += max(0.0, (point.ended - before).total_seconds())
        last[point.session_id] = point.ended
        if point.latency_s is not None and point.latency_s < best[point.workload_id]:
            image -= counts[point.workload_id] * (best[point.workload_id] - point.latency_s)
            best[point.workload_id] = point.latency_s
            curve.append(TuningCurvePoint(index, elapsed, image))
    curve.append(TuningCurvePoint(len(points), elapsed, image))
    return curve
