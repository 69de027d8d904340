"""A browser as a device: what its page says of the GPU, and the worker that measures through the page that lends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import DeviceError, WgtuneError
from ..states import SUSPEND_AFTER, Runtime, TrialState
from .browser_bench import BrowserBench
from .browser_link import PageFault, PageGone, PageLink, PageTimeout
from .browser_server import BrowserServer
from .case_file import CaseError
from .device import Device
from .job import MeasureJob, Measurement, Peaks, Timeouts
from .naming import device_key, model_and_architecture, slug

_SOFTWARE = re.compile("swiftshader|llvmpipe|lavapipe|basic render", re.IGNORECASE)
_FAMILIES = (
    ("Edg/", "edge"),
    ("OPR/", "opera"),
    ("Firefox/", "firefox"),
    ("Chrome/", "chrome"),
    ("Version/", "safari"),
)
"""What tells browsers apart in what they call themselves, the most particular first."""

_RESET_S = 20.0
_MAX_VANISHED = 2
"""A program with which the page breaks off so many times is to blame."""

T = TypeVar("T")


def browser_device(adapter: dict[str, Any]) -> Device:
    """The device that a page's answer describes (``Adapter`` in web/lender/protocol.ts).

    The browser is part of the key: each compiles WGSL in its own way, and their times must not mix; its version is the
    driver. Raises DeviceError where the answer is of another shape.
    """
    try:
        words = {name: str(adapter[name]) for name in ("vendor", "architecture", "device", "description", "userAgent")}
        limits = {str(name): int(value) for name, value in adapter["limits"].items()}
        features = tuple(str(feature) for feature in adapter["features"])
        fallback = bool(adapter["fallback"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeviceError(
            f"the page describes its GPU in a way that cannot be read ({error!r})", "reload it, or use another browser"
        ) from error
    model, architecture = model_and_architecture(words["description"] or words["device"])
    if model == "unknown":
        model = " ".join(part for part in (words["vendor"], words["architecture"]) if part) or "unknown"
    architecture = words["architecture"] or architecture
    family, version = _browser(words["userAgent"])
    software = fallback or bool(_SOFTWARE.search(" ".join(words.values())))
    return Device(
        key=device_key("browser", f"{family} {model}", "" if architecture in slug(model) else architecture),
        backend="browser",
        vendor=slug(words["vendor"]) or "unknown",
        architecture=architecture,
        model=model,
        driver=f"{family} {version}".strip(),
        adapter_type="cpu" if software else "unknown",
        software=software,
        limits=limits,
        features=features,
        runtime=Runtime.BROWSER,
        index=0,
    )


class BrowserWorker:
    """A `MeasuringWorker` whose device is the page that a `BrowserServer` has let in, whichever that is.

    A page that is closed is waited for, and its job done again by the next: closing says nothing about a program. A
    page that breaks off twice with the same program, hangs or loses its GPU is booked on the program. A GPU that cannot
    be opened again within ``reset_s`` seconds is given up until its page comes back.
    """

    def __init__(self, server: BrowserServer, device: Device, timeouts: Timeouts, reset_s: float = _RESET_S) -> None:
        self._reset_s = reset_s
        self._server = server
        self._device = device
        self._timeouts = timeouts
        self._bench: BrowserBench | None = None
        self._peaks: Peaks | None = None
        self._faults = 0

    def measure(self, job: MeasureJob) -> Measurement:
        """As `Worker.measure`; raises DeviceError where no page joins in time, too."""
        if self._faults >= SUSPEND_AFTER:
            self._check_health()
        try:
            measurement = self._with_page(lambda bench: bench.measure(job))
        except CaseError as error:
            raise WgtuneError(str(error), "delete the file if it is damaged: it will be made again") from error
        except _Vanished as vanished:
            text = f"the page broke off {_MAX_VANISHED} times with this program, {vanished}"
            measurement = Measurement(TrialState.DEVICE_LOST, error=text)
        self._faults = self._faults + 1 if measurement.state.crash else 0
        return measurement

    def calibrate(self) -> Peaks:
        """As `Worker.calibrate`."""
        if self._peaks is None:
            self._peaks = self._measure_peaks()
        return self._peaks

    def close(self) -> None:
        """Lets go of the page, which goes on lending until its server ends."""
        self._bench = None

    def _measure_peaks(self) -> Peaks:
        try:
            return self._with_page(lambda bench: bench.measure_peaks())
        except (PageTimeout, PageFault, _Vanished) as fault:
            if self._bench is not None:
                self._bench.hangs = True
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

    def _with_page(self, work: Callable[[BrowserBench], T]) -> T:
        vanished = 0
        while True:
            bench = self._ready()
            try:
                return work(bench)
            except PageGone as gone:
                vanished += not gone.deliberate
                if vanished >= _MAX_VANISHED:
                    raise _Vanished(f"last while {bench.phase.value}") from None

    def _ready(self) -> BrowserBench:
        """A page that is there and whose GPU is open; raises DeviceError where none joins in time."""
        bench, why = self._bench, ""
        if bench is not None and not bench.page.gone and bench.hangs:
            bench, why = self._reopened(bench.page)
        if bench is not None and bench.page.gone:
            why = "the page was closed: " if bench.page.left else "the page does not answer: "
            bench = None
        while bench is None:
            bench, why = self._taken(self._server.wait_for_page(why))
        self._bench = bench
        return bench

    def _reopened(self, page: PageLink) -> tuple[BrowserBench | None, str]:
        """The bench of a page that has opened its GPU anew; None and why where it cannot."""
        try:
            page.ask("reset", {}, self._reset_s)
        except PageGone:
            return None, "the page was closed: "
        except (PageTimeout, PageFault) as error:
            reason = str(error) or "it hangs"
            self._server.dismiss(page, f"The GPU could not be opened again: {reason}.", for_good=False)
            return None, f"the page's GPU could not be opened again ({reason}): wait, or restart the browser and "
        return BrowserBench(self._server, page, self._device, self._timeouts), ""

    def _taken(self, page: PageLink) -> tuple[BrowserBench | None, str]:
        """The bench of a page that has joined; None and why where its GPU is not the one that is tuned."""
        try:
            key = browser_device(page.adapter).key
        except DeviceError as error:
            key = error.message
        if key == self._device.key:
            return BrowserBench(self._server, page, self._device, self._timeouts), ""
        self._server.dismiss(page, f"{self._device.key} is being tuned, and this is {key}.", for_good=True)
        return None, f"{self._device.key} is being tuned, and a page joined with {key}: "


class _Vanished(Exception):
    """The page broke off as often as is put up with."""


def _browser(user_agent: str) -> tuple[str, str]:
    """The browser's family and major version: ``("chrome", "156")``."""
    for mark, family in _FAMILIES:
        if found := re.search(re.escape(mark) + r"(\d+)", user_agent.replace("HeadlessChrome", "Chrome")):
            return family, found.group(1)
    return "unknown", ""
