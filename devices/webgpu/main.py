"""The child's side of `worker.worker`: reads requests from standard input, one JSON object a line, and answers.

Started as ``python -m wgtune.devices.webgpu.main``. The first request opens the device, each later one is a job:

| request | answers |
|---|---|
| `{"open": device}` | `{"id": 0, "ready": true}` |
| `{"id": n, "measure": job}` | `{"id": n, "phase": …}` before each phase, then `{"id": n, "result": measurement}` |
| `{"id": n, "prepare": program}` | phases, then `{"id": n, "result": {"prepared": whether it is compiled now}}` |
| `{"id": n, "calibrate": true}` | phases, then `{"id": n, "result": {"flops_per_s": …, "bytes_per_s": …}}` |

A request that cannot be served for another reason than the candidate ends in `{"id": n, "refused": message}`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, replace

from ...support.child_main import Answer, Requests, serve
from ...support.enums import TrialState
from ..device import Device
from ..measure.job import MeasureJob, Measurement, Peaks
from ..measure.protocol import JobPhase, job_from_json, measurement_to_json
from ..program import AnyProgram, program_from_json

Notify = Callable[[JobPhase], None]
"""Told of each phase of a job before it begins."""


def main(requests: Requests, answer: Answer) -> int:
    """Serves the device that the first request names."""
    device = Device.from_json(requests.get()["open"])
    # Imported here, so that a parent's death is noticed while a driver hangs at being loaded.
    from . import gpu
    from .bench import Bench
    from .peaks import measure_peaks

    gpu.use_backend(device.backend)
    lost = _LostDevice()
    logging.getLogger("wgpu").addHandler(lost)
    bench = Bench(device)

    def measure(job: MeasureJob, notify: Notify) -> Measurement:
        measurement = bench.measure(job, notify)
        return replace(measurement, state=TrialState.DEVICE_LOST, error=lost.message) if lost.message else measurement

    return answer_jobs(requests, answer, measure, bench.prepare, lambda notify: measure_peaks(bench.gpu, notify))


def answer_jobs(
    requests: Requests,
    answer: Answer,
    measure: Callable[[MeasureJob, Notify], Measurement],
    prepare: Callable[[AnyProgram, Notify], bool],
    peaks: Callable[[Notify], Peaks],
) -> int:
    """Says that the device is open, and does one job after the other, as long as the process lives."""
    from ..measure.case_file import CaseError

    answer({"id": 0, "ready": True})
    while True:
        request = requests.get()
        number = request["id"]

        def notify(phase: JobPhase, number: int = number) -> None:
            answer({"id": number, "phase": phase.value})

        if "calibrate" in request:
            answer({"id": number, "result": asdict(peaks(notify))})
            continue
        if "prepare" in request:
            answer({"id": number, "result": {"prepared": prepare(program_from_json(request["prepare"]), notify)}})
            continue
        try:
            measurement = measure(job_from_json(request["measure"]), notify)
        except CaseError as error:
            answer({"id": number, "refused": str(error)})
            continue
        answer({"id": number, "result": measurement_to_json(measurement)})


class _LostDevice(logging.Handler):
    """wgpu tells of a lost device by its log alone when no call of ours was under way."""

    message = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "device was lost" in text.lower():
            self.message = text


if __name__ == "__main__":
    sys.exit(serve(main))
