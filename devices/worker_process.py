"""The child's side of `wgtune.devices.worker`: reads requests from standard input, one JSON object a line, and answers.

Started as ``python -m wgtune.devices.worker_process``. The first request opens the device, each later one is a job:

| request | answers |
|---|---|
| `{"open": device}` | `{"id": 0, "ready": true}` |
| `{"id": n, "measure": job}` | `{"id": n, "phase": …}` before each phase, then `{"id": n, "result": measurement}` |
| `{"id": n, "calibrate": true}` | phases, then `{"id": n, "result": {"flops_per_s": …, "bytes_per_s": …}}` |

A request that cannot be served for another reason than the candidate ends in `{"id": n, "refused": message}`.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, BinaryIO

from ..errors import WgtuneError
from ..states import TrialState
from .device import Device
from .wire import Phase, decode_line, encode_line, job_from_json, measurement_to_json


def main() -> int:
    """Serves until standard input ends, which it does when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to both; the parent decides
    # Drivers print where they like: answers get a descriptor of their own, and what others print goes to stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    answer = _Answers(answers)
    try:
        return _serve(requests, answer)
    except WgtuneError as error:
        answer({"id": 0, "refused": error.message, "hint": error.hint})
        return 1


class _Answers:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __call__(self, message: dict[str, Any]) -> None:
        self._stream.write(encode_line(message))
        self._stream.flush()


def _read(stream: BinaryIO, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Passes requests on; ends the process at the end of the stream, even while a dispatch hangs in the driver."""
    for line in stream:
        requests.put(decode_line(line))
    os._exit(0)


def _serve(requests: queue.SimpleQueue[dict[str, Any]], answer: Callable[[dict[str, Any]], None]) -> int:
    device = Device.from_json(requests.get()["open"])
    # Imported here, so that a parent's death is noticed while a driver hangs at being loaded.
    from . import gpu
    from .case_file import CaseError
    from .measuring import Bench
    from .peaks import measure_peaks

    gpu.use_backend(device.backend)
    lost = _LostDevice()
    logging.getLogger("wgpu").addHandler(lost)
    bench = Bench(device)
    answer({"id": 0, "ready": True})
    while True:
        request = requests.get()
        number = request["id"]

        def notify(phase: Phase, number: int = number) -> None:
            answer({"id": number, "phase": phase.value})

        try:
            if "calibrate" in request:
                answer({"id": number, "result": asdict(measure_peaks(bench.gpu, notify))})
                continue
            measurement = bench.measure(job_from_json(request["measure"]), notify)
        except CaseError as error:
            answer({"id": number, "refused": str(error)})
            continue
        result = measurement_to_json(measurement)
        if lost.message:
            result.update(state=TrialState.DEVICE_LOST.value, error=lost.message)
        answer({"id": number, "result": result})


class _LostDevice(logging.Handler):
    """wgpu tells of a lost device by its log alone when no call of ours was under way."""

    message = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "device was lost" in text.lower():
            self.message = text


if __name__ == "__main__":
    sys.exit(main())
