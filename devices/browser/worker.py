"""Worker that measures on a browser's GPU, through the page that the browser has open."""

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
_MAX_LOST = 2
"""Number of times that the connection may break with the same program before the program is blamed."""

_DOUBTFUL = (TrialState.DEVICE_LOST, TrialState.RUN_ERROR)
"""States that the program compiled at the same time may have caused. A timeout is the measured program's own."""

T = TypeVar("T")


class BrowserWorker:
    """A `MeasuringWorker` for the GPU of a `RegisteredBrowser`, through whichever page it has.

    A job whose page is closed is done again in the next page: closing says nothing about a program. A connection that
    breaks twice with the same program, a timeout and a lost GPU are faults of the program. Where another program was
    being compiled at the same time, the job is repeated alone, and counts then. A page whose GPU cannot be reopened
    within ``reset_s`` seconds is disconnected until it has reopened it.
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
        """As `Worker.measure`; also raises DeviceError where no page joins in time."""
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
        """Forget the page, which stays connected until its browser is released."""
        self._backend = None

    def _measured(self, job: MeasureJob) -> Measurement:
        try:
            return self._with_page(lambda backend: measure(job, backend, self._enter))
        except CaseError as error:
            raise WgtuneError(str(error), "delete the file if it is damaged: it will be made again") from error
        except _ConnectionLost as lost:
            text = f"the page broke off {_MAX_LOST} times with this program, {lost}"
            return Measurement(TrialState.DEVICE_LOST, error=text)

    def _measure_peaks(self) -> Peaks:
        try:
            return self._with_page(lambda backend: backend.measure_peaks(self._enter))
        except (PageTimeout, PageFault, _ConnectionLost) as fault:
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
        lost = 0
        while True:
            backend = self._ready()
            try:
                return work(backend)
            except PageGone as gone:
                lost += not gone.deliberate
                if lost >= _MAX_LOST:
                    raise _ConnectionLost(f"last while {self._phase.value}") from None

    def _ready(self) -> BrowserBackend:
        """Return the backend of a connected page whose GPU is open; raises DeviceError where none joins in time."""
        backend = self._backend
        if backend is not None and not backend.page.gone and backend.needs_reset:
            backend = self._reopened(backend.page)
        if backend is None or backend.page.gone:
            backend = BrowserBackend(self._browser, self._browser.wait_for_page(), self._timeouts)
        self._backend = backend
        return backend

    def _reopened(self, page: PageLink) -> BrowserBackend | None:
        """Have ``page`` reopen its GPU; returns its backend, None where that fails."""
        try:
            page.ask("reset", {}, self._reset_s)
        except PageGone:
            return None
        except (PageTimeout, PageFault) as error:
            self._browser.require_reopen(page, str(error) or "it hangs")
            return None
        return BrowserBackend(self._browser, page, self._timeouts)


class _ConnectionLost(Exception):
    """The connection broke `_MAX_LOST` times with one program."""
