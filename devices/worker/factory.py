"""The interface of workers, which sessions use for every kind of device, and the choice of a worker for a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...support.enums import Runtime
from ...support.errors import DeviceError
from ..device import Device
from ..measure.job import MeasureJob, Measurement, Peaks, Timeouts
from .worker import Worker


class TvmWorker(Worker):
    """`Worker` for the devices of TVM's own runtime, which compiles programs to native code."""

    runtimes = frozenset({Runtime.TVM, Runtime.TVM_CUDA, Runtime.TVM_METAL})

    def _module(self) -> str:
        return "wgtune.devices.tvm.main"


class MeasuringWorker(Protocol):
    """Measures programs on one device. Not for several threads at once.

    Faults of a program are states of its measurement, and are attributed to the job that was running.
    """

    def measure(self, job: MeasureJob) -> Measurement:
        """Run, verify and time ``job.program``.

        Raises:
            DeviceError: The device cannot be reached, or is suspended.
            WgtuneError: The case cannot be read, or does not fit the program.
        """

    def calibrate(self) -> Peaks:
        """Return the device's highest throughput; raises DeviceError where it fails."""

    def close(self) -> None:
        """Release the device, and what was kept on it.

        A worker for a device of this machine or of a browser opens it again for the next job.
        """


OpenWorker = Callable[[Device, Timeouts], MeasuringWorker]
"""Makes the worker for a device."""


def open_worker(device: Device, timeouts: Timeouts) -> MeasuringWorker:
    """Return the worker for a device of this machine; raises DeviceError where none can measure on it."""
    if device.runtime is Runtime.WGPU:
        return Worker(device, timeouts)
    if device.runtime in TvmWorker.runtimes:
        return TvmWorker(device, timeouts)
    raise DeviceError(
        f"{device.key} is reached through {device.runtime.value}, which cannot be measured on",
        "choose a device whose runtime is wgpu: `wgtune devices` lists them",
    )
