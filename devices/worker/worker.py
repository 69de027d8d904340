"""The parent's side of measuring: a device's child processes, their restarts, and whose fault it was."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from ...support.child_process import ChildDied, ChildTimeout
from ...support.enums import SUSPEND_AFTER, Runtime, TrialState
from ...support.errors import DeviceError, WgtuneError
from ..device import Device
from ..measure.job import MeasureJob, Measurement, Peaks, Timeouts
from ..measure.protocol import job_to_json
from ..program import AnyProgram
from .child_handle import BenchProcess, Fault, measurement_of

_MODULE = "wgtune.devices.webgpu.main"
_START_ATTEMPTS = 3
_START_PAUSE_S = 1.0

# Calibrated once per process: sessions and reports ask again and again.
_peaks: dict[tuple[str, str, int], Peaks] = {}


class Worker:
    """Measures programs on one device, in child processes that may crash or hang without harm.

    A context manager; not for several threads at once. The first child starts at ``with``, and again after each fault
    that ended it. A hang or a crash is booked on the job that was running.

    A second child starts with the first job that names an upcoming program. The two take turns: while one measures, the
    other compiles what comes next, and never touches the queue of the device. A fault counts only of a program that was
    alone: one that went down beside the other child, whoever is to blame, is measured again without it. But a program
    that hangs does so by itself.

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
        self._measuring: BenchProcess | None = None
        self._compiling: BenchProcess | None = None
        self._opens_twice = True
        self._large: Path | None = None
        """The last case for which the device's memory held no second child."""

    def __enter__(self) -> Worker:
        """Starts the child; raises DeviceError where it does not come up."""
        self._running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the children. The worker can be used again, which starts others."""
        processes, self._measuring, self._compiling = (self._measuring, self._compiling), None, None
        for process in processes:
            if process is not None:
                process.stop()

    @property
    def pid(self) -> int | None:
        """The process id of the child that measures; None between a fault and the next job."""
        return self._measuring.pid if self._measuring is not None else None

    def measure(self, job: MeasureJob) -> Measurement:
        """Runs, verifies and times ``job.program``; meanwhile ``job.upcoming`` is compiled.

        Whatever the program does ends in the answer's state. Raises DeviceError where the worker does not start or the
        device is suspended, and WgtuneError for a case that cannot be read or does not fit the program.
        """
        if self.consecutive_faults >= self._max_consecutive_faults:
            self._check_health()
        try:
            self._take_turns(job.program)
            self._prepare(job)
            measurement = self._measured(replace(job, upcoming=None))
        except Fault as fault:
            measurement = fault.measurement
        if measurement.state.crash:
            self._kill()  # nothing says what state the driver is in
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
            result = self._running().ask({"calibrate": True})
            return Peaks(float(result["flops_per_s"]), float(result["bytes_per_s"]))
        except (Fault, KeyError, TypeError, ValueError) as fault:
            why = fault.measurement.error if isinstance(fault, Fault) else f"it answered with garbage ({fault})"
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

    def _measured(self, job: MeasureJob) -> Measurement:
        """How ``job`` ended; what may not be its own fault is tried again, in a fresh child with none beside it."""
        measurement, doubtful = self._once(job)
        beside = self._compiling is not None and measurement.state is not TrialState.RUN_TIMEOUT
        if not measurement.state.crash or not (doubtful or beside):
            return measurement
        if measurement.out_of_memory:
            self._large = job.case
        self._kill()
        return self._once(job)[0]

    def _once(self, job: MeasureJob) -> tuple[Measurement, bool]:
        """How ``job`` ended, and whether an earlier one may be to blame for that."""
        process = self._running()
        try:
            return measurement_of(process.ask({"measure": job_to_json(job)})), False
        except Fault as fault:
            return fault.measurement, fault.doubtful

    def _prepare(self, job: MeasureJob) -> None:
        """Has the program that comes after ``job`` compiled beside it, where there is one and room for that."""
        if job.upcoming is None or not self._opens_twice or job.case == self._large:
            return
        try:
            if self._compiling is None or not self._compiling.alive:
                self._drop_compiling()
                self._compiling = BenchProcess(self._module(), self.device, self.timeouts)
            if not self._compiling.is_for(job.upcoming):
                self._compiling.prepare(job.upcoming)
        except ChildDied:
            self._drop_compiling()

    def _take_turns(self, program: AnyProgram) -> None:
        """Lets the child measure that has compiled ``program``, if one has.

        What goes wrong with compiling is passed over: ``program`` will be compiled once more where it is measured. But
        one that takes too long with the device to itself raises Fault.
        """
        compiling = self._compiling
        if compiling is None or not compiling.is_for(program):
            return
        try:
            compiling.wait_until_prepared()
        except Fault as fault:
            self._drop_compiling()
            if fault.measurement.state is TrialState.COMPILE_TIMEOUT:
                raise
        except (ChildDied, ChildTimeout, WgtuneError):
            self._drop_compiling()
            self._opens_twice = False  # some can be opened by one process only, as CUDA in its exclusive mode
        else:
            self._measuring, self._compiling = compiling, self._measuring

    def _running(self) -> BenchProcess:
        """The child that measures, started and with its device open; raises DeviceError where that fails."""
        if self._measuring is not None and not self._measuring.alive:
            self._measuring.kill()
            self._measuring = None
        for attempt in range(_START_ATTEMPTS):
            if self._measuring is not None:
                return self._measuring
            try:
                process = BenchProcess(self._module(), self.device, self.timeouts)
                process.wait_until_open()
                self._measuring = process
            except (ChildDied, ChildTimeout) as error:
                # A driver may need a moment to recover from what the last child did to it.
                if attempt == _START_ATTEMPTS - 1:
                    raise DeviceError(
                        f"the worker for {self.device.key} does not start: {error}",
                        "update the driver or restart the machine, then see what `wgtune devices` lists",
                    ) from error
                time.sleep(_START_PAUSE_S)
        assert self._measuring is not None
        return self._measuring

    def _module(self) -> str:
        """The children's program."""
        return _MODULE

    def _drop_compiling(self) -> None:
        if self._compiling is not None:
            self._compiling.kill()
            self._compiling = None

    def _kill(self) -> None:
        self._drop_compiling()
        if self._measuring is not None:
            self._measuring.kill()
            self._measuring = None
