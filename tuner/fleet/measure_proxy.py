"""Measuring on behalf of a session in a child process: the child's `ProxyWorker` and the parent's `ProxyServer`.

A browser's page is connected to the parent process only. Messages are JSON objects. The child sends
`{"ask": n, "measure": job}` or `{"ask": n, "calibrate": true}`. The parent answers `{"answer": n, "result": …}`, or
`{"answer": n, "refused": message, "hint": hint, "device": whether it is a DeviceError}`.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ...devices.device import Device
from ...devices.measure.job import MeasureJob, Measurement, Peaks, Timeouts
from ...devices.measure.protocol import job_from_json, job_to_json, measurement_from_json, measurement_to_json
from ...devices.worker.factory import MeasuringWorker
from ...support.child_process import ChildDied
from ...support.errors import DeviceError, WgtuneError

Send = Callable[[dict[str, Any]], None]

_POLL_S = 1.0
"""Seconds of each wait for an answer. A signal cannot interrupt a wait without a timeout."""


class ProxyWorker:
    """A `MeasuringWorker` in a session's process whose measuring is done by the parent; ``send`` reaches the parent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def open(self, device: Device, timeouts: Timeouts) -> ProxyWorker:
        """Return this worker, as an `OpenWorker`. The parent knows the session's device and its timeouts."""
        return self

    def measure(self, job: MeasureJob) -> Measurement:
        """Measure a program, as `MeasuringWorker.measure`."""
        return measurement_from_json(self._request({"measure": job_to_json(job)}))

    def calibrate(self) -> Peaks:
        """Measure the device's peak rates, as `MeasuringWorker.calibrate`."""
        return Peaks(**self._request({"calibrate": True}))

    def close(self) -> None:
        """Do nothing: the parent owns the device."""

    def deliver(self, answer: dict[str, Any]) -> None:
        """Hand over an answer that the parent sent. May be called from any thread."""
        self._answers.put(answer)

    def _request(self, content: dict[str, Any]) -> Any:
        number = next(self._numbers)
        self._send({"ask": number, **content})
        while True:
            # Libraries that a session loads install SIGINT's handler with SA_RESTART, which resumes an endless wait.
            try:
                answer = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if answer["answer"] != number:
                continue  # the answer to a request that Ctrl-C cut short
            if "refused" in answer:
                kind = DeviceError if answer["device"] else WgtuneError
                raise kind(answer["refused"], answer["hint"])
            return answer["result"]


class ProxyServer:
    """The parent's side: ``worker`` measures what session processes request, one request at a time."""

    def __init__(self, worker: MeasuringWorker) -> None:
        self._worker = worker
        self._busy = threading.Lock()

    def serve(self, request: dict[str, Any], send: Send) -> None:
        """Answer ``request`` through ``send`` from a thread of its own, without waiting for it."""
        threading.Thread(target=self._serve, args=(request, send), daemon=True).start()

    def _serve(self, request: dict[str, Any], send: Send) -> None:
        # The page may still be measuring for a session process that was killed.
        with self._busy:
            answer = self._answer(request)
        with suppress(ChildDied):  # the process that asked has ended
            send({"answer": request["ask"], **answer})

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if "calibrate" in request:
                return {"result": asdict(self._worker.calibrate())}
            return {"result": measurement_to_json(self._worker.measure(job_from_json(request["measure"])))}
        except WgtuneError as error:
            return {"refused": error.message, "hint": error.hint, "device": isinstance(error, DeviceError)}
        except Exception as error:  # without an answer, the session would wait for ever
            return {"refused": f"measuring failed: {error!r}", "hint": "reload the page that lends", "device": True}
