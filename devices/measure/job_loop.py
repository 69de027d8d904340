"""Request loop of a worker's child process: one JSON object a line on standard input, answers on standard output.

The first request, `{"open": device}`, is answered by the child's main module. The others are:

| request | answers |
|---|---|
| `{"id": n, "measure": job}` | `{"id": n, "phase": …}` before each phase, then `{"id": n, "result": measurement}` |
| `{"id": n, "prepare": program}` | phases, then `{"id": n, "result": {"prepared": whether it is compiled now}}` |
| `{"id": n, "calibrate": true}` | phases, then `{"id": n, "result": {"flops_per_s": …, …}}`, as `job.Peaks` |

A request that cannot be served for another reason than the program ends in `{"id": n, "refused": message}`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NoReturn

from ...support.child_main import Answer, Requests
from .bench import Backend, measure
from .case_file import CaseError
from .phases import JobPhase
from .protocol import job_from_json, measurement_to_json, program_from_json


def answer_requests(requests: Requests, answer: Answer, backend: Backend[Any, Any]) -> NoReturn:
    """Announce that the device is open, and serve one request after the other, as long as the process lives."""
    answer({"id": 0, "ready": True})
    while True:
        request = requests.get()
        number = request["id"]

        def notify(phase: JobPhase, number: int = number) -> None:
            answer({"id": number, "phase": phase.value})

        if "calibrate" in request:
            answer({"id": number, "result": asdict(backend.measure_peaks(notify))})
        elif "prepare" in request:
            notify(JobPhase.COMPILING)
            answer({"id": number, "result": {"prepared": backend.precompile(program_from_json(request["prepare"]))}})
        else:
            try:
                result = measure(job_from_json(request["measure"]), backend, notify)
            except CaseError as error:
                answer({"id": number, "refused": str(error)})
            else:
                answer({"id": number, "result": measurement_to_json(result)})
