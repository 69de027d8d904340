"""What a session asks its parent to measure, and the answers that come late, are refusals, or go nowhere."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wgtune.devices.measure.job import MeasureJob, Measurement, Peaks
from wgtune.devices.program import Program, Requirements
from wgtune.support.child_process import ChildDied
from wgtune.support.enums import TrialState
from wgtune.support.errors import DeviceError, WgtuneError
from wgtune.support.signals import Interrupted, Interrupts
from wgtune.tuner.fleet.measure_proxy import ProxyServer, ProxyWorker

PROGRAM = Program((), (), (), Requirements(64, (64, 1, 1), 0, 2, 4096))
JOB = MeasureJob(PROGRAM, Path("/case.safetensors"), 1e-3, 1e-4, floor_s=2e-6)


class Recorder:
    """Measures nothing, and remembers what it was asked."""

    def __init__(self, peaks: Callable[[], Peaks] = lambda: Peaks(1e9, 2e9)) -> None:
        self.jobs: list[MeasureJob] = []
        self._peaks = peaks

    def measure(self, job: MeasureJob) -> Measurement:
        self.jobs.append(job)
        return Measurement(TrialState.OK, (1e-3, 2e-3), "timestamp", max_error=0.5)

    def calibrate(self) -> Peaks:
        return self._peaks()

    def close(self) -> None:
        pass


def connected(worker: Recorder) -> ProxyWorker:
    server = ProxyServer(worker)
    proxy: ProxyWorker = ProxyWorker(lambda question: server.serve(question, proxy.deliver))
    return proxy


def test_jobs_and_answers_arrive_whole() -> None:
    recorder = Recorder()
    proxy = connected(recorder)
    assert proxy.measure(JOB) == Measurement(TrialState.OK, (1e-3, 2e-3), "timestamp", max_error=0.5)
    assert recorder.jobs == [JOB] and proxy.calibrate() == Peaks(1e9, 2e9)


def raising(error: Exception) -> Callable[[], Peaks]:
    def peaks() -> Peaks:
        raise error

    return peaks


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DeviceError("the page was closed", "open it"), DeviceError, "^the page was closed"),
        (WgtuneError("a case is damaged", "delete it"), WgtuneError, "^a case is damaged"),
        (KeyError("wall"), DeviceError, "measuring failed: KeyError"),
    ],
)
def test_what_the_parent_cannot_do_is_raised_in_the_session(
    error: Exception, kind: type[WgtuneError], message: str
) -> None:
    with pytest.raises(WgtuneError, match=message) as raised:
        connected(Recorder(raising(error))).calibrate()
    assert type(raised.value) is kind and raised.value.hint


def test_an_answer_to_a_question_that_was_given_up_is_passed_over() -> None:
    asked: list[dict[str, Any]] = []
    proxy = ProxyWorker(asked.append)
    proxy.deliver({"answer": 0, "result": {"flops_per_s": 1.0, "bytes_per_s": 1.0}})
    proxy.deliver({"answer": 1, "result": {"flops_per_s": 2.0, "bytes_per_s": 3.0}})
    assert proxy.calibrate() == Peaks(2.0, 3.0) and [one["ask"] for one in asked] == [1]


def test_the_page_is_asked_one_thing_at_a_time_and_a_dead_session_stops_nobody() -> None:
    going, at_once, free = 0, 0, threading.Event()

    def peaks() -> Peaks:
        nonlocal going, at_once
        going += 1
        at_once = max(at_once, going)
        free.wait(5)
        going -= 1
        return Peaks(1.0, 1.0)

    server = ProxyServer(Recorder(peaks))
    answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def dead(message: dict[str, Any]) -> None:
        raise ChildDied("was ended by SIGKILL (signal 9)", "")

    server.serve({"ask": 1, "calibrate": True}, dead)
    server.serve({"ask": 1, "calibrate": True}, answers.put)
    threading.Timer(0.1, free.set).start()
    assert answers.get(timeout=5)["answer"] == 1 and at_once == 1


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(signal, "siginterrupt"), reason="Windows has no calls that signals restart")
def test_ctrl_c_gets_through_while_the_parent_measures() -> None:
    proxy = ProxyWorker(lambda question: None)
    with Interrupts() as interrupts:
        signal.siginterrupt(signal.SIGINT, False)  # as libraries leave it behind that a session loads
        main = threading.main_thread().ident or 0
        threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        with pytest.raises(Interrupted), interrupts.cutting_short():
            proxy.calibrate()
