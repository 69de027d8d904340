"""Device source of browsers whose pages give access to their GPUs."""

from __future__ import annotations

import time

from ...devices.browser.page_registry import PageRegistry, RegisteredBrowser
from ...devices.browser.worker import BrowserWorker
from ...devices.device import Device
from ...devices.measure.job import Timeouts
from ...devices.worker.factory import MeasuringWorker
from ...support.errors import DeviceError


class BrowserSource:
    """A `DeviceSource` in which every browser that opens the page's address is a device."""

    def __init__(self, registry: PageRegistry, minutes: float | None) -> None:
        """Wait for a first browser as long as the registry waits for a page, and for at most ``minutes``."""
        self._registry = registry
        self._deadline = time.monotonic() + registry.wait_s
        if minutes is not None:
            registry.until = time.monotonic() + 60 * minutes
            self._deadline = min(self._deadline, registry.until)

    def available_devices(self) -> list[Device]:
        """Return the devices of browsers whose page is connected, as `DeviceSource.available_devices`."""
        return [each.device for each in self._registry.browsers() if not each.page.gone and not each.released]

    def unavailable_reason(self, device: Device) -> str:
        """Return why the browser's page is not connected, as `DeviceSource.unavailable_reason`."""
        return self._browser(device).absence_reason

    def awaited_device(self) -> str:
        """Return "browser" until a first browser has joined, as `DeviceSource.awaited_device`."""
        if self._registry.browsers():
            return ""
        if time.monotonic() >= self._deadline:
            raise DeviceError(
                "no browser joined in time", "type the same command again, and open the address that it prints"
            )
        return "browser"

    def join_instructions(self) -> str:
        """Return which address to open, as `DeviceSource.join_instructions`."""
        browsers = self._registry.browsers()
        disconnected = [each.device.key for each in browsers if each.page.gone and not each.released]
        if disconnected:
            return f"open {self._registry.address} to go on with {', '.join(disconnected)}"
        if browsers:
            return f"open {self._registry.address} in another browser to tune its GPU, too"
        return f"open {self._registry.address} in the browser whose GPU is to be tuned"

    def local_worker(self, device: Device, timeouts: Timeouts) -> MeasuringWorker:
        """Return a worker for the page, which only this process can reach, as `DeviceSource.local_worker`."""
        return BrowserWorker(self._browser(device), timeouts)

    def release(self, device: Device) -> None:
        """Tell the page that it may be closed, as `DeviceSource.release`."""
        self._browser(device).release()

    def _browser(self, device: Device) -> RegisteredBrowser:
        return next(browser for browser in self._registry.browsers() if browser.device == device)
