"""Measuring for a session in another process: what the session asks its parent, and the parent's answers.

A browser's page is connected to one process, whose children are the sessions. Messages are JSON objects:
`{"ask": n, "measure": job}` and `{"ask": n, "calibrate": true}`, answered by `{"answer": n, "result": …}`, or by
`{"answer": n, "refused": message, "hint": hint, "device": whether the device is to blame}`.
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

_TICK_S = 1.0
"""An answer is waited for in pieces: only a wait that has an end can be interrupted."""


class RelayedWorker:
    """A `MeasuringWorker` in a session's process: the parent measures. ``send`` goes to the parent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def opener(self, device: Device, timeouts: Timeouts) -> RelayedWorker:
        """Itself, as an `OpenWorker`: the parent knows the session's device and its timeouts."""
        return self

    def measure(self, job: MeasureJob) -> Measurement:
        """As `MeasuringWorker.measure`."""
        return measurement_from_json(self._ask({"measure": job_to_json(job)}))

    def calibrate(self) -> Peaks:
        """As `MeasuringWorker.calibrate`."""
        return Peaks(**self._ask({"calibrate": True}))

    def close(self) -> None:
        """The parent keeps the device for as long as it wants."""

    def take(self, answer: dict[str, Any]) -> None:
        """An answer of the parent has come; for any thread."""
        self._answers.put(answer)

    def _ask(self, content: dict[str, Any]) -> Any:
        number = next(self._numbers)
        self._send({"ask": number, **content})
        while True:
            # What a session loads puts SIGINT's handler back with SA_RESTART: a wait without an end would just go on.
            try:
                answer = self._answers.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if answer["answer"] != number:
                continue  # of a question that Ctrl-C cut short
            if "refused" in answer:
                kind = DeviceError if answer["device"] else WgtuneError
                raise kind(answer["refused"], answer["hint"])
            return answer["result"]


class Relay:
    """The parent's side: ``worker`` measures what sessions' processes ask, one thing at a time."""

    def __init__(self, worker: MeasuringWorker) -> None:
        self._worker = worker
        self._one_at_a_time = threading.Lock()

    def serve(self, question: dict[str, Any], send: Send) -> None:
        """Has a question answered by way of ``send``, in a thread of its own: nothing waits for it here."""
        threading.Thread(target=self._serve, args=(question, send), daemon=True).start()

    def _serve(self, question: dict[str, Any], send: Send) -> None:
        # A process that was killed may have left a question behind, which the page is still at.
        with self._one_at_a_time:
            answer = self._answer(question)
        with suppress(ChildDied, ValueError):  # nobody waits for it any more
            send({"answer": question["ask"], **answer})

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            if "calibrate" in question:
                return {"result": asdict(self._worker.calibrate())}
            return {"result": measurement_to_json(self._worker.measure(job_from_json(question["measure"])))}
        except WgtuneError as error:
            return {"refused": error.message, "hint": error.hint, "device": isinstance(error, DeviceError)}
        except Exception as error:  # the session would wait for its answer for ever
            return {"refused": f"measuring failed: {error!r}", "hint": "reload the page that lends", "device": True}
