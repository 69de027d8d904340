"""Which worker measures on which device: the one interface that sessions know, whatever way leads to the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...support.enums import Runtime
from ...support.errors import DeviceError
from ..device import Device
from ..measure.job import MeasureJob, Measurement, Peaks, Timeouts
from .worker import Worker


class TvmWorker(Worker):
    """A `Worker` whose programs TVM compiles to native code and runs through its own runtime."""

    runtimes = frozenset({Runtime.TVM, Runtime.TVM_CUDA, Runtime.TVM_METAL})

    def _module(self) -> str:
        return "wgtune.devices.tvm.main"


class MeasuringWorker(Protocol):
    """Measures programs on one device. Not for several threads at once.

    Whatever a program does ends in the answer's state, and a fault is booked on the job that was running.
    """

    def measure(self, job: MeasureJob) -> Measurement:
        """Runs, verifies and times ``job.program``.

        Raises DeviceError where the device cannot be reached or is suspended, and WgtuneError for a case that cannot
        be read or does not fit the program.
        """

    def calibrate(self) -> Peaks:
        """What the device can do at best; raises DeviceError where it fails."""

    def close(self) -> None:
        """Lets go of the device, and of what was kept on it.

        On a device of this machine or of a browser, measuring again takes hold of it anew.
        """


OpenWorker = Callable[[Device, Timeouts], MeasuringWorker]
"""Makes the worker of a session."""


def open_worker(device: Device, timeouts: Timeouts) -> MeasuringWorker:
    """The worker for a device of this machine; raises DeviceError where there is no way to measure on it."""
    if device.runtime is Runtime.WGPU:
        return Worker(device, timeouts)
    if device.runtime in TvmWorker.runtimes:
        return TvmWorker(device, timeouts)
    raise DeviceError(
        f"{device.key} is reached through {device.runtime.value}, which cannot be measured on",
        "choose a device whose runtime is wgpu: `wgtune devices` lists them",
    )
