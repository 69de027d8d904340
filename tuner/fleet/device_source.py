"""Devices that come and go while a fleet tunes: browsers, and what a cluster's agents lend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...devices.device import Device
from ...devices.measure.job import Timeouts
from ...devices.worker.factory import MeasuringWorker


class Visitors(Protocol):
    """What a fleet asks now and then, in one thread."""

    def there(self) -> Sequence[Device]:
        """The devices that can be measured on now; each equals what it was when it comes back."""

    def absence(self, device: Device) -> str:
        """Why ``device`` is not there."""

    def expected(self) -> str:
        """What to call a device that is still waited for, "" where there is none.

        Raises DeviceError where it comes no more.
        """

    def invitation(self) -> str:
        """How another device may join, in words for the screen, "" where nothing is to be said."""

    def worker(self, device: Device, timeouts: Timeouts) -> MeasuringWorker | None:
        """What measures on ``device`` in this process; None where its session's process reaches it by itself."""

    def release(self, device: Device) -> None:
        """The device's session has ended."""
