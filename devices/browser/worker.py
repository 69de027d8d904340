"""The worker that measures through the page of a browser that lends its GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ...support.enums import SUSPEND_AFTER, TrialState
from ...support.errors import DeviceError, WgtuneError
from ..measure.bench import measure
from ..measure.case_file import CaseError
from ..measure.job import MeasureJob, Measurement, Peaks, Timeouts
from ..measure.phases import JobPhase
from .backend import BrowserBackend
from .page_link import PageFault, PageGone, PageLink, PageTimeout
from .page_registry import RegisteredBrowser

_RESET_S = 20.0
_MAX_VANISHED = 2
"""A program with which the page breaks off so many times is to blame."""

_DOUBTFUL = (TrialState.DEVICE_LOST, TrialState.RUN_ERROR)
"""How a program ends that goes down, or one that is compiled beside it. A program that hangs does so by itself."""

T = TypeVar("T")


class BrowserWorker:
    """A `MeasuringWorker` whose device is a browser's `RegisteredBrowser`, whichever page it has.

    A page that is closed is waited for, and its job done again by the next: closing says nothing about a program. A
    page that breaks off twice with the same program, hangs or loses its GPU is booked on the program; where another was
    being compiled meanwhile, only if the same comes of it alone. A GPU that cannot be opened again within ``reset_s``
    seconds is given up until its page comes back.
    """

    def __init__(self, browser: RegisteredBrowser, timeouts: Timeouts, reset_s: float = _RESET_S) -> None:
        self._browser = browser
        self._device = browser.device
        self._reset_s = reset_s
        self._timeouts = timeouts
        self._backend: BrowserBackend | None = None
        self._phase = JobPhase.LOADING
        self._peaks: Peaks | None = None
        self._faults = 0

    def measure(self, job: MeasureJob) -> Measurement:
        """As `Worker.measure`; raises DeviceError where no page joins in time, too."""
        if self._faults >= SUSPEND_AFTER:
            self._check_health()
        measurement = self._measured(job)
        if measurement.state in _DOUBTFUL and job.upcoming is not None:
            measurement = self._measured(replace(job, upcoming=None))
        self._faults = self._faults + 1 if measurement.state.crash else 0
        return measurement

    def calibrate(self) -> Peaks:
        """As `Worker.calibrate`."""
        if self._peaks is None:
            self._peaks = self._measure_peaks()
        return self._peaks

    def close(self) -> None:
        """Lets go of the page, which goes on lending until its browser ends."""
        self._backend = None

    def _measured(self, job: MeasureJob) -> Measurement:
        try:
            return self._with_page(lambda backend: measure(job, backend, self._enter))
        except CaseError as error:
            raise WgtuneError(str(error), "delete the file if it is damaged: it will be made again") from error
        except _Vanished as vanished:
            text = f"the page broke off {_MAX_VANISHED} times with this program, {vanished}"
            return Measurement(TrialState.DEVICE_LOST, error=text)

    def _measure_peaks(self) -> Peaks:
        try:
            return self._with_page(lambda backend: backend.measure_peaks(self._enter))
        except (PageTimeout, PageFault, _Vanished) as fault:
            if self._backend is not None:
                self._backend.needs_reset = True
            raise DeviceError(
                f"{self._device.key} failed at a simple test program: {str(fault) or 'it did not answer in time'}",
                "restart the browser, and type the same command again, which goes on where it stopped",
            ) from fault

    def _check_health(self) -> None:
        try:
            self._measure_peaks()
        except DeviceError as error:
            raise DeviceError(
                f"{self._device.key} is suspended: {self._faults} programs in a row hung or crashed, and now a simple "
                f"one does too ({error.message})",
                error.hint,
            ) from error
        self._faults = 0

    def _enter(self, phase: JobPhase) -> None:
        self._phase = phase

    def _with_page(self, work: Callable[[BrowserBackend], T]) -> T:
        vanished = 0
        while True:
            backend = self._ready()
            try:
                return work(backend)
            except PageGone as gone:
                vanished += not gone.deliberate
                if vanished >= _MAX_VANISHED:
                    raise _Vanished(f"last while {self._phase.value}") from None

    def _ready(self) -> BrowserBackend:
        """A page that is there and whose GPU is open; raises DeviceError where none joins in time."""
        backend = self._backend
        if backend is not None and not backend.page.gone and backend.needs_reset:
            backend = self._reopened(backend.page)
        if backend is None or backend.page.gone:
            backend = BrowserBackend(self._browser, self._browser.wait_for_page(), self._timeouts)
        self._backend = backend
        return backend

    def _reopened(self, page: PageLink) -> BrowserBackend | None:
        """The bench of a page that has opened its GPU anew; None where it cannot."""
        try:
            page.ask("reset", {}, self._reset_s)
        except PageGone:
            return None
        except (PageTimeout, PageFault) as error:
            self._browser.require_reopen(page, str(error) or "it hangs")
            return None
        return BrowserBackend(self._browser, page, self._timeouts)


class _Vanished(Exception):
    """The page broke off as often as is put up with."""
