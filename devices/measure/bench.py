"""Measurement of one job, the same for every way of reaching a device: load, compile, run, verify, sample.

`measure` is the whole procedure. A `Backend` supplies the operations that depend on the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from ...support.enums import TrialState
from ..program import AnyProgram, NativeProgram, Program
from .case_file import CaseArrays, CaseError
from .job import MeasureJob, Measurement, Peaks
from .phases import JobPhase, Notify, PhaseClock
from .requirements import UnsupportedProgram
from .sampling import Sampler
from .verify import check_floor, verify_outputs

ProgramT = TypeVar("ProgramT", Program, NativeProgram)
RunnableT = TypeVar("RunnableT")


class Backend(ABC, Generic[ProgramT, RunnableT]):
    """One device reached in one way: ``ProgramT`` is what it compiles, ``RunnableT`` what it compiles that to.

    `measure` calls `accept`, `sampler`, `load`, `compile`, the sampler's runs, `read_output` and `end_job`, in this
    order. A backend keeps the arrays of the last case on the device, since successive jobs mostly share a case. Not for
    several threads at once.
    """

    @abstractmethod
    def accept(self, program: AnyProgram) -> ProgramT:
        """Return ``program`` if the device can run it; raises UnsupportedProgram."""

    @abstractmethod
    def sampler(self) -> Sampler[RunnableT]:
        """Return the sampler that runs and times the program of one job."""

    @abstractmethod
    def load(self, path: Path, program: ProgramT) -> CaseArrays:
        """Put the case on the device: inputs as given, outputs and scratch buffers poisoned with ones in every bit.

        Returns when that is done.

        Raises:
            CaseError: The case cannot be read, or does not fit the program.
            UnsupportedProgram: The device cannot hold the buffers.
        """

    @abstractmethod
    def compile(self, program: ProgramT) -> tuple[RunnableT, float]:
        """Return ``program`` ready to run on the loaded case, and the seconds that `precompile` spent on it before."""

    @abstractmethod
    def read_output(self, index: int) -> np.ndarray:
        """Return what parameter ``index`` holds on the device, in the shape and dtype that the case expects."""

    @abstractmethod
    def failure(self, error: Exception, phase: JobPhase) -> Measurement | None:
        """Return how a job ends in whose ``phase`` ``error`` was raised; None raises ``error`` from `measure`."""

    @abstractmethod
    def precompile(self, program: AnyProgram) -> bool:
        """Compile ``program``, which is likely to be measured next, without submitting work to the device.

        Returns False where that fails, and raises nothing: `compile` will raise the error. May return before the
        compilation has ended.
        """

    @abstractmethod
    def measure_peaks(self, notify: Notify) -> Peaks:
        """Measure the device's highest throughput and the time of a dispatch; raises DeviceError where it fails."""

    def end_job(self) -> None:
        """Free what was allocated for one job."""

    @property
    def lost_message(self) -> str:
        """What the driver reported of the loss of the device outside any call; "" while it is not lost."""
        return ""


def measure(job: MeasureJob, backend: Backend[ProgramT, RunnableT], notify: Notify) -> Measurement:
    """Run, verify and time ``job``.

    The first run is verified. Only a program with a right result is sampled, and only a median sample of at least
    ``job.floor_s`` is accepted.

    Args:
        job: What to measure. ``job.upcoming``, if any, is precompiled.
        backend: The device.
        notify: Called with each phase before it begins; with RUNNING before each submission.

    Returns:
        How the job ended. The times count on failure, too.

    Raises:
        CaseError: The case cannot be read, or does not fit the program.
        Exception: Whatever `Backend.failure` does not attribute to the program.
    """
    try:
        result = _measure(job, backend.accept(job.program), backend, notify)
    except UnsupportedProgram as error:
        result = Measurement(TrialState.BUILD_ERROR, error=str(error))
    lost = backend.lost_message
    return replace(result, state=TrialState.DEVICE_LOST, error=lost) if lost else result


def _measure(job: MeasureJob, program: ProgramT, backend: Backend[ProgramT, RunnableT], notify: Notify) -> Measurement:
    clock = PhaseClock()

    def enter(phase: JobPhase) -> None:
        clock.enter(phase)
        notify(phase)

    sampler = backend.sampler()
    sampler.busy_s = precompile_s = 0.0
    sampler.before_submit = lambda: notify(JobPhase.RUNNING)
    try:
        enter(JobPhase.LOADING)
        case = backend.load(job.case, program)
        enter(JobPhase.COMPILING)
        runnable, precompile_s = backend.compile(program)
        if job.upcoming is not None:
            backend.precompile(job.upcoming)
        enter(JobPhase.RUNNING)
        first_s = sampler.run_first(runnable)
        enter(JobPhase.VERIFYING)
        result = verify_outputs(job, case.expected, backend.read_output)
        if result.state is TrialState.OK:
            enter(JobPhase.RUNNING)
            taken = sampler.sample(runnable, job.sampling, first_s)
            result = replace(result, samples_s=taken.samples_s, warmup_s=taken.warmup_s, timer=sampler.kind)
            result = check_floor(result, job.floor_s)
    except (CaseError, UnsupportedProgram):
        raise
    except Exception as error:
        failure = backend.failure(error, clock.phase)
        if failure is None:
            raise
        result = failure
    finally:
        backend.end_job()
    return replace(
        result,
        compile_s=precompile_s + clock.seconds(JobPhase.COMPILING),
        run_s=sampler.busy_s,
        verify_s=clock.seconds(JobPhase.LOADING, JobPhase.VERIFYING),
    )
