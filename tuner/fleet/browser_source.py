"""Browsers that lend their GPUs, as a fleet's visitors."""

from __future__ import annotations

import time

from ...devices.browser.page_registry import Loan, Loans
from ...devices.browser.worker import BrowserWorker
from ...devices.device import Device
from ...devices.measure.job import Timeouts
from ...devices.worker.factory import MeasuringWorker
from ...support.errors import DeviceError


class Browsers:
    """Browsers as visitors: each that opens an address becomes a device of its own."""

    def __init__(self, loans: Loans, minutes: float | None) -> None:
        """A first browser is waited for as long as any page, and for ``minutes`` at most."""
        self._loans = loans
        self._until = time.monotonic() + loans.wait_s
        if minutes is not None:
            loans.until = time.monotonic() + 60 * minutes
            self._until = min(self._until, loans.until)

    def there(self) -> list[Device]:
        """As `Visitors.there`."""
        return [loan.device for loan in self._loans.all() if not loan.page.gone and not loan.over]

    def absence(self, device: Device) -> str:
        """As `Visitors.absence`."""
        return self._loan(device).why

    def expected(self) -> str:
        """As `Visitors.expected`: the first browser is waited for, others may come."""
        if self._loans.all():
            return ""
        if time.monotonic() >= self._until:
            raise DeviceError(
                "no browser joined in time", "type the same command again, and open the address that it prints"
            )
        return "browser"

    def invitation(self) -> str:
        """As `Visitors.invitation`."""
        loans = self._loans.all()
        away = [loan.device.key for loan in loans if loan.page.gone and not loan.over]
        if away:
            return f"open {self._loans.address} to go on with {', '.join(away)}"
        if loans:
            return f"open {self._loans.address} in another browser to tune its GPU, too"
        return f"open {self._loans.address} in the browser whose GPU is to be tuned"

    def worker(self, device: Device, timeouts: Timeouts) -> MeasuringWorker:
        """As `Visitors.worker`."""
        return BrowserWorker(self._loan(device), timeouts)

    def release(self, device: Device) -> None:
        """As `Visitors.release`: its page says that it may be closed."""
        self._loan(device).end()

    def _loan(self, device: Device) -> Loan:
        return next(loan for loan in self._loans.all() if loan.device == device)
