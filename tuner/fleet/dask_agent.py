"""`wgtune agent`: a Dask worker that measures on this machine's devices for tuners elsewhere.

An agent announces each of its devices to the scheduler as a Dask resource. Its tasks measure single programs. Search,
schedules and the database stay with the tuner, so that the loss of an agent costs one measurement, which Dask gives to
another agent with an equal device, or to the next one that joins.

A browser whose page is connected to this process is a Dask worker of its own, which joins and leaves with the page.

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
from ...devices.browser.worker import BrowserWorker
from ...devices.device import Device
from ...devices.measure.job import Timeouts
from ...devices.measure.protocol import job_from_json, measurement_to_json
from ...devices.worker.factory import MeasuringWorker, OpenWorker, open_worker
from ...support.errors import DeviceError, WgtuneError, first_line
from ...support.paths import cache_dir

STARTUP_KEY = "wgtune"
"""Key under which the scheduler keeps an agent's `startup_information`."""

_PLUGIN = "wgtune-devices"
_RETRY_S = 3.0
"""Seconds between two attempts to reach the scheduler."""
_POLL_S = 0.3
"""Seconds between two polls of the registered browsers."""


def resource_name(device: Device) -> str:
    """Return the name of the Dask resource for ``device``.

    Devices with the same name differ in nothing that a session records, so that a measurement may move between them.
    Another driver version gives another name.
    """
    same = {**device.to_json(), "index": 0}
    digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
    return f"wgtune {device.key} {digest}"


def startup_information(devices: Sequence[Device]) -> dict[str, Any]:
    """Return what an agent tells the scheduler about itself, as JSON values."""
    return {
        "version": metadata.version("wgtune"),
        "host": platform.node(),
        "pid": os.getpid(),
        "devices": [device.to_json() for device in devices],
    }


async def serve_agent(
    scheduler: str,
    devices: Sequence[Device],
    announce: Callable[[str], None],
    retry_s: float = _RETRY_S,
    registry: PageRegistry | None = None,
) -> None:
    """Offer ``devices`` to the cluster at ``scheduler`` until SIGINT or SIGTERM; rejoin whenever it was cut off.

    Args:
        scheduler: The scheduler's address.
        devices: Devices of this machine.
        announce: Called with a line of text when something changes.
        retry_s: Seconds between two attempts to reach the scheduler.
        registry: Registry of browsers, each of which is offered too while its page is connected; None for no browsers.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # ``announce`` says what a user must know
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows, where KeyboardInterrupt ends it
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    workers = []
    if devices:
        workers.append(_run_worker(scheduler, devices, DevicePool(devices), stop, announce, retry_s))
    if registry is not None:
        workers.append(_run_browser_workers(scheduler, registry, stop, announce, retry_s))
    await asyncio.gather(*workers)


async def _run_worker(
    scheduler: str,
    devices: Sequence[Device],
    pool: DevicePool,
    stop: asyncio.Event,
    announce: Callable[[str], None],
    retry_s: float,
) -> None:
    """Run a Dask worker with ``devices`` until ``stop``, and a new one whenever the connection was lost."""
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
            plugins=(pool,),
            memory_limit=0,
            dashboard=False,
            nanny=None,
            death_timeout=10,
        )
        try:
            await worker
        except (OSError, TimeoutError, asyncio.TimeoutError, RuntimeError) as error:
            if not waiting:
                announce(f"no scheduler answers at {scheduler} ({first_line(error)}); trying again")
            waiting = True
            await _wait_for_any(stop.wait(), asyncio.sleep(retry_s))
            continue
        waiting = False
        announce(f"joined {scheduler} with {', '.join(device.key for device in devices)}")
        await _wait_for_any(stop.wait(), worker.finished())
        if stop.is_set():
            await worker.close(timeout=3, executor_wait=False, reason="the agent was stopped")
        else:
            announce(f"cut off from {scheduler}; trying again")
            with suppress(Exception):
                await worker.close(timeout=3, executor_wait=False)
            await _wait_for_any(stop.wait(), asyncio.sleep(retry_s))


async def _run_browser_workers(
    scheduler: str, registry: PageRegistry, stop: asyncio.Event, announce: Callable[[str], None], retry_s: float
) -> None:
    """Run a Dask worker for each browser while its page is connected, until ``stop``.

    When a page leaves, Dask gives its measurement to an equal device. The abandoned task keeps the browser's device in
    its pool until it ends, even where the page comes back meanwhile.
    """
    pools: dict[RegisteredBrowser, DevicePool] = {}
    workers: dict[RegisteredBrowser, tuple[asyncio.Event, asyncio.Task[None]]] = {}
    announced = ""
    while not stop.is_set():
        if announced != registry.address:
            announced = registry.address
            announce(f"open {announced} in {'another' if pools else 'a'} browser to lend its GPU")
        for browser in registry.browsers():
            if not browser.page.gone and browser not in workers:
                if browser not in pools:
                    pools[browser] = DevicePool([browser.device], partial(_browser_worker, browser))
                until = asyncio.Event()
                worker = _run_worker(scheduler, [browser.device], pools[browser], until, announce, retry_s)
                workers[browser] = until, asyncio.create_task(worker)
            elif browser.page.gone and browser in workers:
                announce(f"{browser.device.key}: {browser.absence_reason}")
                await _end_worker(*workers.pop(browser))
        await _wait_for_any(stop.wait(), asyncio.sleep(_POLL_S))
    for until, task in workers.values():
        await _end_worker(until, task)


async def _end_worker(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    stop.set()
    await task


def _browser_worker(browser: RegisteredBrowser, device: Device, timeouts: Timeouts) -> MeasuringWorker:
    return BrowserWorker(browser, timeouts)


async def _wait_for_any(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


class DevicePool(WorkerPlugin):
    """Dask plugin with the agent's devices and their measuring workers, each used by one task at a time."""

    name = _PLUGIN

    def __init__(self, devices: Sequence[Device], opener: OpenWorker = open_worker) -> None:
        self._free: dict[str, queue.Queue[_PooledDevice]] = {}
        for device in devices:
            self._free.setdefault(resource_name(device), queue.Queue()).put(_PooledDevice(device, opener))

    @contextmanager
    def acquire(self, kind: str, timeouts: Timeouts) -> Iterator[MeasuringWorker]:
        """Yield the worker of a free device whose `resource_name` is ``kind``; wait where none is free.

        Raises:
            DeviceError: The agent has no such device.
        """
        if kind not in self._free:
            raise DeviceError(f"this agent has no device {kind}", "`wgtune tune --scheduler` finds what there is")
        slot = self._free[kind].get()
        try:
            yield slot.worker(timeouts)
        finally:
            self._free[kind].put(slot)


class _PooledDevice:
    """One device and its worker, which is opened again when the timeouts change."""

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


# The tasks that tuners submit. Dask calls them by name on the agent; they take and return JSON values.


def measure(kind: str, job: dict[str, Any], digest: str, timeouts: dict[str, float]) -> dict[str, Any]:
    """Measure a program, and return ``{"result": measurement}``.

    Return ``{"missing": address of this agent}`` where the case file with SHA-256 ``digest`` has not been sent yet, and
    ``{"refused": message, "hint": hint, "device": whether it is a DeviceError}`` for an error that the user can mend.
    """
    case = case_path(digest)
    if not case.is_file():
        return {"missing": get_worker().address}
    return _with_worker(
        kind,
        timeouts,
        lambda worker: measurement_to_json(worker.measure(job_from_json({**job, "case": str(case)}))),
    )


def calibrate(kind: str, timeouts: dict[str, float]) -> dict[str, Any]:
    """Measure peak rates, and return ``{"result": peaks}``, or a refusal as `measure` does."""
    return _with_worker(kind, timeouts, lambda worker: asdict(worker.calibrate()))


def receive_case(digest: str, offset: int, data: bytes, last: bool) -> None:
    """Write ``data`` at ``offset`` of a case file; after the ``last`` part, check its SHA-256 and publish the file.

    Raises:
        ValueError: The file's SHA-256 is not ``digest``.
    """
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
    """Return the path of the case file with this SHA-256 on an agent; raises ValueError where it is no SHA-256."""
    if not (len(digest) == 64 and all(c in "0123456789abcdef" for c in digest)):
        raise ValueError(f"{digest!r} is no SHA-256")
    return cache_dir() / "received-cases" / f"{digest}.safetensors"


def _with_worker(
    kind: str, timeouts: dict[str, float], ask: Callable[[MeasuringWorker], dict[str, Any]]
) -> dict[str, Any]:
    pool = get_worker().plugins[_PLUGIN]
    assert isinstance(pool, DevicePool)
    try:
        with pool.acquire(kind, Timeouts(**timeouts)) as worker:
            return {"result": ask(worker)}
    except WgtuneError as error:
        return {"refused": error.message, "hint": error.hint, "device": isinstance(error, DeviceError)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
