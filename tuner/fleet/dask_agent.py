"""`wgtune agent`: lends this machine's devices to the tuners of a Dask cluster.

An agent is a Dask worker that announces each of its devices as a resource. What it is asked to do is to measure single
programs: search, schedules and the database stay with the tuner, so that losing an agent costs one measurement, which
Dask gives to another agent with such a device, or to the next one that joins.

A browser that lends its GPU to this process is a Dask worker of its own, which joins when its page does, and leaves
with it.

Whoever reaches the scheduler can run code on its agents, as on any Dask worker: use it on a network that you trust, or
with TLS as Dask's documentation describes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import platform
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from distributed import Worker as DaskWorker
from distributed import WorkerPlugin, get_worker

from ...devices.browser.page_registry import PageRegistry, RegisteredBrowser
from ...devices.device import Device
from ...devices.measure.job import Timeouts
from ...devices.measure.protocol import job_from_json, measurement_to_json
from ...devices.worker.factory import MeasuringWorker, OpenWorker, open_worker
from ...support.errors import DeviceError, WgtuneError
from ...support.paths import cache_dir

STARTUP_KEY = "wgtune"
"""Under this name the scheduler keeps what an agent says of itself."""

_PLUGIN = "wgtune-devices"
_RETRY_S = 3.0
"""Between two attempts at reaching the scheduler."""
_LOOK_S = 0.3
"""Between two looks at who lends."""


def resource_name(device: Device) -> str:
    """The name of the Dask resource for ``device``: two devices of one kind differ in nothing that a session records.

    So a measurement may move between them. Another driver version is another kind.
    """
    same = {**device.to_json(), "index": 0}
    digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
    return f"wgtune {device.key} {digest}"


def startup_information(devices: Sequence[Device]) -> dict[str, Any]:
    """What an agent says of itself to the scheduler, as JSON values."""
    return {
        "version": metadata.version("wgtune"),
        "host": platform.node(),
        "pid": os.getpid(),
        "devices": [device.to_json() for device in devices],
    }


async def serve_agent(
    scheduler: str,
    devices: Sequence[Device],
    say: Callable[[str], None],
    retry_s: float = _RETRY_S,
    registry: PageRegistry | None = None,
) -> None:
    """Lends ``devices`` to the cluster at ``scheduler`` until SIGINT or SIGTERM; joins again whenever it was cut off.

    ``say`` is called with a line of text when something changes. With ``registry``, the browsers that register in
    it are lent on, each as long as its page is there.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what a user must know is said by ``say``
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows; there KeyboardInterrupt ends it
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lending = []
    if devices:
        lending.append(_lend(scheduler, devices, DevicePool(devices), stop, say, retry_s))
    if registry is not None:
        lending.append(_lend_browsers(scheduler, registry, stop, say, retry_s))
    await asyncio.gather(*lending)


async def _lend(
    scheduler: str,
    devices: Sequence[Device],
    bank: DevicePool,
    stop: asyncio.Event,
    say: Callable[[str], None],
    retry_s: float,
) -> None:
    """Is a worker of the cluster with ``devices``, over and over, until ``stop``."""
    resources: dict[str, float] = {}
    for device in devices:
        resources[resource_name(device)] = resources.get(resource_name(device), 0) + 1
    waiting = False
    while not stop.is_set():
        worker = DaskWorker(
            scheduler,
            nthreads=len(devices) + 1,
            resources=resources,
            startup_information={STARTUP_KEY: lambda _: startup_information(devices)},
            plugins=(bank,),
            memory_limit=0,
            dashboard=False,
            nanny=None,
            death_timeout=10,
        )
        try:
            await worker
        except (OSError, TimeoutError, asyncio.TimeoutError, RuntimeError) as error:
            if not waiting:
                say(f"no scheduler answers at {scheduler} ({_first_line(error)}); trying again")
            waiting = True
            await _either(stop.wait(), asyncio.sleep(retry_s))
            continue
        waiting = False
        say(f"joined {scheduler} with {', '.join(device.key for device in devices)}")
        await _either(stop.wait(), worker.finished())
        if stop.is_set():
            await worker.close(timeout=3, executor_wait=False, reason="the agent was stopped")
        else:
            say(f"cut off from {scheduler}; trying again")
            with suppress(Exception):
                await worker.close(timeout=3, executor_wait=False)
            await _either(stop.wait(), asyncio.sleep(retry_s))


async def _lend_browsers(
    scheduler: str, registry: PageRegistry, stop: asyncio.Event, say: Callable[[str], None], retry_s: float
) -> None:
    """Lends each browser on while its page is there, until ``stop``.

    What a page that left was measuring, Dask gives to another one of its kind. Whatever still waits for that page here
    is answered to nobody, and has the page to itself for that long where it comes back.
    """
    banks: dict[RegisteredBrowser, DevicePool] = {}
    lent: dict[RegisteredBrowser, tuple[asyncio.Event, asyncio.Task[None]]] = {}
    told = ""
    while not stop.is_set():
        if told != registry.address:
            told = registry.address
            say(f"open {told} in {'another' if banks else 'a'} browser to lend its GPU")
        for browser in registry.browsers():
            if not browser.page.gone and browser not in lent:
                if browser not in banks:
                    banks[browser] = DevicePool([browser.device], partial(_browser_worker, browser))
                until = asyncio.Event()
                lending = _lend(scheduler, [browser.device], banks[browser], until, say, retry_s)
                lent[browser] = until, asyncio.create_task(lending)
            elif browser.page.gone and browser in lent:
                say(f"{browser.device.key}: {browser.absence_reason}")
                await _end_lending(*lent.pop(browser))
        await _either(stop.wait(), asyncio.sleep(_LOOK_S))
    for until, lending_task in lent.values():
        await _end_lending(until, lending_task)


async def _end_lending(until: asyncio.Event, lending: asyncio.Task[None]) -> None:
    until.set()
    await lending


def _browser_worker(browser: RegisteredBrowser, device: Device, timeouts: Timeouts) -> MeasuringWorker:
    from ...devices.browser.worker import BrowserWorker

    return BrowserWorker(browser, timeouts)


async def _either(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


class DevicePool(WorkerPlugin):
    """The agent's devices with their measuring processes, each used by one task at a time."""

    name = _PLUGIN

    def __init__(self, devices: Sequence[Device], opener: OpenWorker = open_worker) -> None:
        self._free: dict[str, queue.Queue[_Slot]] = {}
        for device in devices:
            self._free.setdefault(resource_name(device), queue.Queue()).put(_Slot(device, opener))

    @contextmanager
    def taking(self, kind: str, timeouts: Timeouts) -> Iterator[MeasuringWorker]:
        """One device of ``kind``, waited for where a task of a lost tuner still holds it."""
        if kind not in self._free:
            raise DeviceError(f"this agent has no device {kind}", "`wgtune tune --scheduler` finds what there is")
        slot = self._free[kind].get()
        try:
            yield slot.worker(timeouts)
        finally:
            self._free[kind].put(slot)


class _Slot:
    def __init__(self, device: Device, opener: OpenWorker) -> None:
        self._device = device
        self._opener = opener
        self._timeouts: Timeouts | None = None
        self._worker: MeasuringWorker | None = None

    def worker(self, timeouts: Timeouts) -> MeasuringWorker:
        if self._worker is None or timeouts != self._timeouts:
            if self._worker is not None:
                self._worker.close()
            self._worker, self._timeouts = self._opener(self._device, timeouts), timeouts
        return self._worker


# What tuners ask for. Dask calls these by name on the agent; they take and return JSON values.


def measure(kind: str, job: dict[str, Any], digest: str, timeouts: dict[str, float]) -> dict[str, Any]:
    """A `Measurement` as ``{"result": …}``; ``{"missing": address}`` where the case has not been sent yet.

    What a user can mend is ``{"refused": message, "hint": hint, "device": whether the device is to blame}``.
    """
    case = case_path(digest)
    if not case.is_file():
        return {"missing": get_worker().address}
    return _answering(
        kind,
        timeouts,
        lambda worker: measurement_to_json(worker.measure(job_from_json({**job, "case": str(case)}))),
    )


def calibrate(kind: str, timeouts: dict[str, float]) -> dict[str, Any]:
    """`Peaks` as ``{"result": …}``, or a refusal as `measure` answers it."""
    return _answering(kind, timeouts, lambda worker: asdict(worker.calibrate()))


def receive_case(digest: str, offset: int, data: bytes, last: bool) -> None:
    """Takes in a part of a case file; the file is there when the last part has come and its SHA-256 is right."""
    path = case_path(digest)
    partial = path.with_suffix(f".{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(data)
    if last:
        if _sha256(partial) != digest:
            partial.unlink()
            raise ValueError("the case arrived damaged")
        os.replace(partial, path)


def case_path(digest: str) -> Path:
    """Where the case with this SHA-256 lies on an agent."""
    if not (len(digest) == 64 and all(c in "0123456789abcdef" for c in digest)):
        raise ValueError(f"{digest!r} is no SHA-256")
    return cache_dir() / "received-cases" / f"{digest}.safetensors"


def _answering(
    kind: str, timeouts: dict[str, float], ask: Callable[[MeasuringWorker], dict[str, Any]]
) -> dict[str, Any]:
    bank = get_worker().plugins[_PLUGIN]
    assert isinstance(bank, DevicePool)
    try:
        with bank.taking(kind, Timeouts(**timeouts)) as worker:
            return {"result": ask(worker)}
    except WgtuneError as error:
        return {"refused": error.message, "hint": error.hint, "device": isinstance(error, DeviceError)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
