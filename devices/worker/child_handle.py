"""Handle of a child process with a device open: requests, time limits by phase, and faults."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import replace
from typing import Any

from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.enums import TrialState
from ...support.errors import DeviceError, WgtuneError
from ..device import Device
from ..measure.job import Measurement, Timeouts
from ..measure.phases import JobPhase, PhaseClock, limit_s, timed_out
from ..measure.protocol import measurement_from_json, program_to_json
from ..program import AnyProgram

_PHASES = [phase.value for phase in JobPhase]


class ChildFault(Exception):
    """A request ended its child process. ``doubtful``: an earlier request may have caused it."""

    def __init__(self, measurement: Measurement, doubtful: bool) -> None:
        super().__init__(measurement.error)
        self.measurement = measurement
        self.doubtful = doubtful


class ChildHandle:
    """A child process that serves one request at a time.

    The process is killed when a request ends in any other way than by an answer. A `prepare` request is served while
    the parent does other work.
    """

    def __init__(self, module: str, device: Device, timeouts: Timeouts) -> None:
        """Start ``python -m module``, which opens ``device``; raises ChildDied where it ends at once."""
        self._timeouts = timeouts
        self._child = Child(module)
        self._is_open = False
        self._requests = 0
        self._preparing: tuple[int, str] | None = None
        try:
            self._child.send({"open": device.to_json()})
        except BaseException:
            self._child.kill()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._child.alive

    def wait_until_open(self) -> None:
        """Return when the device is open; raises ChildDied, ChildTimeout, and DeviceError where the child refuses."""
        if self._is_open:
            return
        try:
            deadline = time.monotonic() + self._timeouts.start_s
            while not (message := self._child.receive(deadline)).get("ready"):
                if "refused" in message:
                    raise DeviceError(str(message["refused"]), str(message.get("hint", "")))
        except BaseException:
            self.kill()
            raise
        self._is_open = True

    def prepare(self, program: AnyProgram) -> None:
        """Start compiling ``program`` for a later `measure` request; raises ChildDied."""
        self._preparing = self._send({"prepare": program_to_json(program)}), program.digest

    def is_for(self, program: AnyProgram) -> bool:
        """Return whether ``program`` is the one of the last `prepare` request."""
        return self._preparing is not None and self._preparing[1] == program.digest

    def wait_until_prepared(self) -> None:
        """Return when the last `prepare` request has ended, successfully or not.

        The time limits count from this call. Raises ChildFault, and what `wait_until_open` raises.
        """
        self.wait_until_open()
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            self._await_result(preparing[0])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a request; raises ChildFault on a hang or crash, WgtuneError where the child refuses."""
        self._preparing = None
        try:
            number = self._send(request)
        except ChildDied as died:
            raise self._death(died, PhaseClock()) from None
        return self._await_result(number)

    def stop(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        self._child.stop()

    def kill(self) -> None:
        """Kill the process."""
        self._child.kill()

    def _send(self, request: dict[str, Any]) -> int:
        number = secrets.randbits(53)
        self._requests += 1
        self._child.send({"id": number, **request})
        return number

    def _await_result(self, number: int) -> dict[str, Any]:
        clock = PhaseClock()
        try:
            message = self._await_end(number, clock)
        except ChildTimeout:
            self.kill()
            raise ChildFault(_with_times(timed_out(self._timeouts, clock.phase), clock), doubtful=False) from None
        except ChildDied as died:
            raise self._death(died, clock) from None
        except BaseException:
            self.kill()  # Ctrl-C: the child must not go on with the request
            raise
        if "refused" in message:
            raise WgtuneError(str(message["refused"]), "delete the file if it is damaged: it will be made again")
        result: dict[str, Any] = message["result"]
        return result

    def _await_end(self, number: int, clock: PhaseClock) -> dict[str, Any]:
        """Return the last message about request ``number``. Each phase that the process reports has its own limit.

        Other messages (garbage, answers to other requests) are ignored, and do not extend the limit. Numbers are
        random, so that a message received before the request cannot be taken for its answer.
        """
        deadline = time.monotonic() + limit_s(self._timeouts, clock.phase)
        while True:
            message = self._child.receive(deadline)
            if message.get("id") != number:
                continue
            if isinstance(message.get("result"), dict) or "refused" in message:
                return message
            if message.get("phase") in _PHASES:
                clock.enter(JobPhase(message["phase"]))
                deadline = time.monotonic() + limit_s(self._timeouts, clock.phase)

    def _death(self, died: ChildDied, clock: PhaseClock) -> ChildFault:
        self.kill()
        where = f"while {clock.phase.value}" if clock.begun else "before it began"
        text = f"the worker process {died.how} {where}" + (f"; its last words:\n{died.words}" if died.words else "")
        measurement = Measurement(TrialState.RUN_ERROR, error=text)
        return ChildFault(_with_times(measurement, clock), doubtful=self._requests > 1 or not clock.begun)


def measurement_of(result: dict[str, Any]) -> Measurement:
    """Return the measurement that a process answered; raises ChildFault where it is none, or is inconsistent."""
    try:
        measurement = measurement_from_json(result)
        if not measurement.state.ended:
            raise ValueError(f"{measurement.state.value} is not an end state")
        verified = measurement.max_error is not None and math.isfinite(measurement.max_error)
        if measurement.state is TrialState.OK and not (measurement.samples_s and verified):
            raise ValueError("ok without samples or without a verification")
        return measurement
    except ValueError as error:
        text = f"the worker process answered with garbage: {error}"
        raise ChildFault(Measurement(TrialState.RUN_ERROR, error=text), doubtful=False) from None


def _with_times(measurement: Measurement, clock: PhaseClock) -> Measurement:
    """Return ``measurement`` with the times that the parent saw, for jobs whose process did not answer."""
    return replace(
        measurement,
        compile_s=clock.seconds(JobPhase.COMPILING),
        run_s=clock.seconds(JobPhase.RUNNING),
        verify_s=clock.seconds(JobPhase.LOADING, JobPhase.VERIFYING),
    )
