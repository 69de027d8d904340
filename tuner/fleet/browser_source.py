"""Browsers that lend their GPUs, as a fleet's visitors."""

from __future__ import annotations

import time

from ...devices.browser.page_registry import PageRegistry, RegisteredBrowser
from ...devices.browser.worker import BrowserWorker
from ...devices.device import Device
from ...devices.measure.job import Timeouts
from ...devices.worker.factory import MeasuringWorker
from ...support.errors import DeviceError


class Browsers:
    """Browsers as visitors: each that opens an address becomes a device of its own."""

    def __init__(self, registry: PageRegistry, minutes: float | None) -> None:
        """A first browser is waited for as long as any page, and for ``minutes`` at most."""
        self._registry = registry
        self._until = time.monotonic() + registry.wait_s
        if minutes is not None:
            registry.until = time.monotonic() + 60 * minutes
            self._until = min(self._until, registry.until)

    def there(self) -> list[Device]:
        """As `Visitors.there`."""
        return [each.device for each in self._registry.browsers() if not each.page.gone and not each.released]

    def absence(self, device: Device) -> str:
        """As `Visitors.absence`."""
        return self._browser(device).absence_reason

    def expected(self) -> str:
        """As `Visitors.expected`: the first browser is waited for, others may come."""
        if self._registry.browsers():
            return ""
        if time.monotonic() >= self._until:
            raise DeviceError(
                "no browser joined in time", "type the same command again, and open the address that it prints"
            )
        return "browser"

    def invitation(self) -> str:
        """As `Visitors.invitation`."""
        browsers = self._registry.browsers()
        away = [each.device.key for each in browsers if each.page.gone and not each.released]
        if away:
            return f"open {self._registry.address} to go on with {', '.join(away)}"
        if browsers:
            return f"open {self._registry.address} in another browser to tune its GPU, too"
        return f"open {self._registry.address} in the browser whose GPU is to be tuned"

    def worker(self, device: Device, timeouts: Timeouts) -> MeasuringWorker:
        """As `Visitors.worker`."""
        return BrowserWorker(self._browser(device), timeouts)

    def release(self, device: Device) -> None:
        """As `Visitors.release`: its page says that it may be closed."""
        self._browser(device).release()

    def _browser(self, device: Device) -> RegisteredBrowser:
        return next(browser for browser in self._registry.browsers() if browser.device == device)
