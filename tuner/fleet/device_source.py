"""Protocol of a source of devices that join and leave while a fleet tunes: browsers, or a Dask cluster's agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...devices.device import Device
from ...devices.measure.job import Timeouts
from ...devices.worker.factory import MeasuringWorker


class DeviceSource(Protocol):
    """Source of devices that join and leave. A fleet polls it, always from one thread."""

    def available_devices(self) -> Sequence[Device]:
        """Return the devices that can measure now. A device that comes back equals what it was before."""

    def unavailable_reason(self, device: Device) -> str:
        """Return why ``device`` is not available."""

    def awaited_device(self) -> str:
        """Return the name for a device that must still join, "" where none must.

        Raises:
            DeviceError: The device did not join in time.
        """

    def join_instructions(self) -> str:
        """Return a sentence that tells the user how another device can join; "" for none."""

    def local_worker(self, device: Device, timeouts: Timeouts) -> MeasuringWorker | None:
        """Return the worker in this process that measures on ``device``.

        None means that the session's own process reaches the device.
        """

    def release(self, device: Device) -> None:
        """Take note that the session of ``device`` has ended."""
