"""The parent's side of measuring: one child process per device, its timeouts, its restarts, and whose fault it was."""

from __future__ import annotations

import math
import secrets
import time
from types import TracebackType
from typing import Any

from ..errors import DeviceError, WgtuneError
from ..states import SUSPEND_AFTER, Runtime, TrialState
from .child import Child, ChildDied, ChildTimeout
from .device import Device
from .job import MeasureJob, Measurement, Peaks, Timeouts
from .wire import Phase, job_to_json, measurement_from_json

_MODULE = "wgtune.devices.worker_process"
_START_ATTEMPTS = 3
_START_PAUSE_S = 1.0
_PHASES = [phase.value for phase in Phase]
_TIMEOUT_STATES = {Phase.COMPILING: TrialState.COMPILE_TIMEOUT, Phase.RUNNING: TrialState.RUN_TIMEOUT}

# Calibrated once per process: sessions and reports ask again and again.
_peaks: dict[tuple[str, str, int], Peaks] = {}


class Worker:
    """Measures programs on one device, in a child process that may crash or hang without harm.

    A context manager; not for several threads at once. The child starts at ``with``, and again after each fault that
    ended it. A hang or a crash is booked on the job that was running.

    ``consecutive_faults`` counts the jobs since the last good answer that took the child down. When it reaches
    ``max_consecutive_faults``, the device must first run a program that is known to be good; where it does not, it is
    suspended: `measure` raises DeviceError.
    """

    runtimes = frozenset({Runtime.WGPU})
    """What it reaches devices through."""

    def __init__(
        self, device: Device, timeouts: Timeouts | None = None, max_consecutive_faults: int = SUSPEND_AFTER
    ) -> None:
        """Raises DeviceError for a device that does not run WGSL."""
        if device.runtime not in self.runtimes:
            raise DeviceError(
                f"{device.key} is reached through {device.runtime.value}, which does not run WGSL",
                "choose a device whose runtime is wgpu: `wgtune devices` lists them",
            )
        self.device = device
        self.timeouts = timeouts or Timeouts()
        self.consecutive_faults = 0
        self._max_consecutive_faults = max_consecutive_faults
        self._child: Child | None = None
        self._child_jobs = 0

    def __enter__(self) -> Worker:
        """Starts the child; raises DeviceError where it does not come up."""
        self._running_child()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child. The worker can be used again, which starts another."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    @property
    def pid(self) -> int | None:
        """The process id of the child; None between a fault and the next job."""
        return self._child.pid if self._child is not None else None

    def measure(self, job: MeasureJob) -> Measurement:
        """Runs, verifies and times ``job.program``.

        Whatever the program does ends in the answer's state. Raises DeviceError where the worker does not start or the
        device is suspended, and WgtuneError for a case that cannot be read or does not fit the program.
        """
        if self.consecutive_faults >= self._max_consecutive_faults:
            self._check_health()
        request = {"measure": job_to_json(job)}
        try:
            try:
                result = self._ask(request)
            except _Fault as fault:
                if not fault.doubtful:
                    raise
                # The child may have died of an earlier program, or while it was idle: only a fresh one is proof.
                result = self._ask(request)
            measurement = _measurement(result)
        except _Fault as fault:
            self._kill_child()
            self.consecutive_faults += 1
            return fault.measurement
        if measurement.state in (TrialState.RUN_ERROR, TrialState.DEVICE_LOST):
            self._kill_child()  # nothing says what state the driver is in
            self.consecutive_faults += 1
        else:
            self.consecutive_faults = 0
        return measurement

    def calibrate(self) -> Peaks:
        """What the device can do at best; measured once per process and device. Raises DeviceError where it fails."""
        identity = (self.device.key, self.device.driver, self.device.index)
        if identity not in _peaks:
            _peaks[identity] = self._measure_peaks()
        return _peaks[identity]

    def _measure_peaks(self) -> Peaks:
        try:
            result = self._ask({"calibrate": True})
            return Peaks(float(result["flops_per_s"]), float(result["bytes_per_s"]))
        except (_Fault, KeyError, TypeError, ValueError) as fault:
            why = fault.measurement.error if isinstance(fault, _Fault) else f"it answered with garbage ({fault})"
            raise DeviceError(
                f"{self.device.key} failed at a simple test program: {why}",
                "update the driver or restart the machine, then see what `wgtune devices` lists",
            ) from fault

    def _check_health(self) -> None:
        try:
            self._measure_peaks()
        except DeviceError as error:
            raise DeviceError(
                f"{self.device.key} is suspended: {self.consecutive_faults} programs in a row hung or crashed, and now "
                f"a simple one does too ({error.message})",
                f"{error.hint}; `wgtune devices --health` lists its faults",
            ) from error
        self.consecutive_faults = 0

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The result of one request. Raises _Fault when the child hangs or dies of it, WgtuneError when it refuses."""
        child = self._running_child()
        self._child_jobs += 1
        number = secrets.randbits(53)
        clock = _PhaseClock()
        try:
            child.send({"id": number, **request})
            message = self._await_end(child, number, clock)
        except ChildTimeout:
            self._kill_child()
            state = _TIMEOUT_STATES.get(clock.phase, TrialState.RUN_ERROR)
            text = f"{clock.phase.value} did not end within {self._limit_s(clock.phase):g} s"
            raise _Fault(clock.stop(state, text), doubtful=False) from None
        except ChildDied as died:
            doubtful = self._child_jobs > 1 or not clock.begun
            self._kill_child()
            where = f"while {clock.phase.value}" if clock.begun else "before it began"
            text = f"the worker process {died.how} {where}" + (f"; its last words:\n{died.words}" if died.words else "")
            raise _Fault(clock.stop(TrialState.RUN_ERROR, text), doubtful) from None
        except BaseException:
            self._kill_child()  # Ctrl-C: the child must not go on with a job that nobody waits for
            raise
        if "refused" in message:
            raise WgtuneError(str(message["refused"]), "delete the file if it is damaged: it will be made again")
        result: dict[str, Any] = message["result"]
        return result

    def _await_end(self, child: Child, number: int, clock: _PhaseClock) -> dict[str, Any]:
        """The last message about request ``number``; each phase that the child reports has its own time limit.

        Whatever else comes is passed over, and does not extend the limit: garbage, and answers to other requests. An
        answer cannot be there before its question, since nobody can guess a number.
        """
        deadline = time.monotonic() + self._limit_s(clock.phase)
        while True:
            message = child.receive(deadline)
            if message.get("id") != number:
                continue
            if isinstance(message.get("result"), dict) or "refused" in message:
                return message
            if message.get("phase") in _PHASES:
                clock.enter(Phase(message["phase"]))
                deadline = time.monotonic() + self._limit_s(clock.phase)

    def _limit_s(self, phase: Phase) -> float:
        if phase is Phase.COMPILING:
            return self.timeouts.compile_s
        if phase is Phase.RUNNING:
            return self.timeouts.run_s
        return self.timeouts.start_s

    def _running_child(self) -> Child:
        """The child, started and with its device open; raises DeviceError where that fails."""
        if self._child is not None and not self._child.alive:
            self._kill_child()
        for attempt in range(_START_ATTEMPTS):
            if self._child is not None:
                return self._child
            try:
                self._child = self._start()
            except (ChildDied, ChildTimeout) as error:
                # A driver may need a moment to recover from what the last child did to it.
                if attempt == _START_ATTEMPTS - 1:
                    raise DeviceError(
                        f"the worker for {self.device.key} does not start: {error}",
                        "update the driver or restart the machine, then see what `wgtune devices` lists",
                    ) from error
                time.sleep(_START_PAUSE_S)
        assert self._child is not None
        return self._child

    def _start(self) -> Child:
        child = Child(self._module())
        try:
            child.send({"open": self.device.to_json()})
            deadline = time.monotonic() + self.timeouts.start_s
            while not (message := child.receive(deadline)).get("ready"):
                if "refused" in message:
                    raise DeviceError(str(message["refused"]), str(message.get("hint", "")))
        except BaseException:
            child.kill()
            raise
        self._child_jobs = 0
        return child

    def _module(self) -> str:
        """The child's program."""
        return _MODULE

    def _kill_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Fault(Exception):
    """A job took its child down; ``measurement`` says how. ``doubtful``: something before the job may be to blame."""

    def __init__(self, measurement: Measurement, doubtful: bool) -> None:
        super().__init__(measurement.error)
        self.measurement = measurement
        self.doubtful = doubtful


def _measurement(result: dict[str, Any]) -> Measurement:
    """What the child answered; raises _Fault where that is no measurement: nothing it says can be believed then."""
    try:
        measurement = measurement_from_json(result)
        if not measurement.state.ended:
            raise ValueError(f"{measurement.state.value} is no end of a job")
        if measurement.state is TrialState.OK and not (measurement.samples_s and _is_number(measurement.max_error)):
            raise ValueError("ok without samples or without a verification")
        return measurement
    except (KeyError, TypeError, ValueError) as error:
        text = f"the worker process answered with garbage: {type(error).__name__}: {error}"
        raise _Fault(Measurement(TrialState.RUN_ERROR, error=text), doubtful=False) from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


class _PhaseClock:
    """The phase that a job is in, and the seconds spent in each, for jobs that do not live to tell."""

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.begun = False
        self._since = time.monotonic()
        self._seconds = dict.fromkeys(Phase, 0.0)

    def enter(self, phase: Phase) -> None:
        now = time.monotonic()
        self._seconds[self.phase] += now - self._since
        self.phase, self._since, self.begun = phase, now, True

    def stop(self, state: TrialState, error: str) -> Measurement:
        self._seconds[self.phase] += time.monotonic() - self._since
        return Measurement(
            state,
            compile_s=self._seconds[Phase.COMPILING],
            run_s=self._seconds[Phase.RUNNING],
            verify_s=self._seconds[Phase.LOADING] + self._seconds[Phase.VERIFYING],
            error=error,
        )
