"""Worker for a local device: child processes that measure, their restarts, and attribution of faults."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType

from ...support.child_process import ChildDied, ChildTimeout
from ...support.enums import SUSPEND_AFTER, Runtime, TrialState
from ...support.errors import DeviceError, WgtuneError
from ..device import Device
from ..measure.job import MeasureJob, Measurement, Peaks, Timeouts
from ..measure.protocol import job_to_json
from ..program import AnyProgram
from .child_handle import ChildFault, ChildHandle, measurement_of

_MODULE = "wgtune.devices.webgpu.main"
_START_ATTEMPTS = 3
_START_PAUSE_S = 1.0

# Calibrated once per process, because sessions and reports ask repeatedly.
_peaks: dict[tuple[str, str, int], Peaks] = {}


class Worker:
    """Measures programs on one device, in child processes, so that a crash or hang ends only a child.

    A context manager; not for several threads at once. The first child starts at ``with``, and again after each fault
    that ended it. A hang or a crash is attributed to the job that was running.

    A second child starts with the first job that names an upcoming program. The two alternate: while one measures, the
    other compiles the upcoming program, without submitting work to the device. Either may cause a crash of the other,
    so a crash is attributed to a program only if it was alone: otherwise it is measured again without the second child.
    A timeout of a run is always the program's own.

    ``consecutive_faults`` counts the jobs since the last good answer that ended a child. When it reaches
    ``max_consecutive_faults``, the device must first run a program that is known to be good. Where it fails, the device
    is suspended: `measure` raises DeviceError.
    """

    runtimes = frozenset({Runtime.WGPU})
    """Runtimes of the devices that this worker measures on."""

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
        self._measuring: ChildHandle | None = None
        self._compiling: ChildHandle | None = None
        self._allows_second_child = True
        self._oversized_case: Path | None = None
        """The last case that did not fit in the device's memory beside a second child."""

    def __enter__(self) -> Worker:
        """Start the first child; raises DeviceError where it does not start."""
        self._ready_child()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children. Using the worker again starts others."""
        processes, self._measuring, self._compiling = (self._measuring, self._compiling), None, None
        for process in processes:
            if process is not None:
                process.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the child that measures; None between a fault and the next job."""
        return self._measuring.pid if self._measuring is not None else None

    def measure(self, job: MeasureJob) -> Measurement:
        """Run, verify and time ``job.program``; meanwhile ``job.upcoming`` is compiled.

        Faults of the program are states of the measurement.

        Raises:
            DeviceError: The child does not start, or the device is suspended.
            WgtuneError: The case cannot be read, or does not fit the program.
        """
        if self.consecutive_faults >= self._max_consecutive_faults:
            self._check_health()
        try:
            self._swap_children(job.program)
            self._start_compiling(job)
            measurement = self._measure_with_retry(replace(job, upcoming=None))
        except ChildFault as fault:
            measurement = fault.measurement
        if measurement.state.crash:
            self._kill()  # the driver's state is unknown now
            self.consecutive_faults += 1
        else:
            self.consecutive_faults = 0
        return measurement

    def calibrate(self) -> Peaks:
        """Return the device's peaks, measured once per process and device; raises DeviceError where that fails."""
        identity = (self.device.key, self.device.driver, self.device.index)
        if identity not in _peaks:
            _peaks[identity] = self._measure_peaks()
        return _peaks[identity]

    def _measure_peaks(self) -> Peaks:
        try:
            result = self._ready_child().ask({"calibrate": True})
            return Peaks(*(float(result[field.name]) for field in fields(Peaks)))
        except (ChildFault, KeyError, TypeError, ValueError) as fault:
            why = fault.measurement.error if isinstance(fault, ChildFault) else f"it answered with garbage ({fault})"
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

    def _measure_with_retry(self, job: MeasureJob) -> Measurement:
        """Measure ``job``; a crash that it may not have caused is repeated in a new child, with none beside it."""
        measurement, doubtful = self._measure_once(job)
        beside = self._compiling is not None and measurement.state is not TrialState.RUN_TIMEOUT
        if not measurement.state.crash or not (doubtful or beside):
            return measurement
        if measurement.out_of_memory:
            self._oversized_case = job.case
        self._kill()
        return self._measure_once(job)[0]

    def _measure_once(self, job: MeasureJob) -> tuple[Measurement, bool]:
        """Measure ``job`` once; return also whether an earlier job may have caused its fault."""
        process = self._ready_child()
        try:
            return measurement_of(process.ask({"measure": job_to_json(job)})), False
        except ChildFault as fault:
            return fault.measurement, fault.doubtful

    def _start_compiling(self, job: MeasureJob) -> None:
        """Start compiling the program that comes after ``job`` in the second child, if memory suffices for one."""
        if job.upcoming is None or not self._allows_second_child or job.case == self._oversized_case:
            return
        try:
            if self._compiling is None or not self._compiling.alive:
                self._drop_compiling()
                self._compiling = ChildHandle(self._module(), self.device, self.timeouts)
            if not self._compiling.is_for(job.upcoming):
                self._compiling.prepare(job.upcoming)
        except ChildDied:
            self._drop_compiling()

    def _swap_children(self, program: AnyProgram) -> None:
        """Make the child that has compiled ``program`` the one that measures, if there is one.

        Raises ChildFault where compiling exceeds its time limit. Other errors are ignored, since ``program`` will be
        compiled again where it is measured.
        """
        compiling = self._compiling
        if compiling is None or not compiling.is_for(program):
            return
        try:
            compiling.wait_until_prepared()
        except ChildFault as fault:
            self._drop_compiling()
            if fault.measurement.state is TrialState.COMPILE_TIMEOUT:
                raise
        except (ChildDied, ChildTimeout, WgtuneError):
            self._drop_compiling()
            self._allows_second_child = False  # only one process can open some devices, such as CUDA in exclusive mode
        else:
            self._measuring, self._compiling = compiling, self._measuring

    def _ready_child(self) -> ChildHandle:
        """Return the child that measures, with the device open; starts it if needed. Raises DeviceError."""
        if self._measuring is not None and not self._measuring.alive:
            self._measuring.kill()
            self._measuring = None
        for attempt in range(_START_ATTEMPTS):
            if self._measuring is not None:
                return self._measuring
            try:
                process = ChildHandle(self._module(), self.device, self.timeouts)
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
        """Return the name of the children's main module."""
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
