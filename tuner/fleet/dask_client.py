"""The tuner's side of a Dask cluster: a device source of its agents' devices, and a worker that measures on them.

A session runs on the tuner's machine as for any other device. Only single measurements are Dask tasks. So agents need
neither a database nor a model, and the loss of an agent costs one measurement instead of a kernel.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.client import CancelledError
from distributed.scheduler import KilledWorker

from ...devices.device import Device
from ...devices.measure.job import MeasureJob, Measurement, Peaks, Timeouts
from ...devices.measure.protocol import job_to_json, measurement_from_json
from ...devices.worker.factory import OpenWorker
from ...support.errors import DeviceError, WgtuneError, first_line
from . import dask_agent as agent

_CHUNK = 8 << 20
"""Bytes of a case file that are sent at once."""

_CONNECT_S = 10.0
_RESTARTS = 20
"""Attempts at one measurement. Dask repeats each attempt itself when it loses a few agents."""

_PAUSE_S = 1.0


@dataclass(frozen=True)
class ClusterDevices:
    """Devices of a cluster's agents, and for each agent that is left out, why."""

    devices: list[Device]
    problems: list[str]


class Cluster:
    """Connection to a Dask scheduler; a context manager."""

    def __init__(self, scheduler: str) -> None:
        """Connect; raises DeviceError where no scheduler answers at the address."""
        self.scheduler = scheduler
        self.client = connect(scheduler)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        close(self.client)

    def list_devices(self) -> ClusterDevices:
        """Return the devices of all agents; raises DeviceError where the scheduler does not answer any more.

        Equal devices of several agents are listed once for each agent, with an ``index`` of their own.
        """
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError, CancelledError) as error:
            raise _scheduler_gone(self.scheduler) from error
        ours = metadata.version("wgtune")
        found: dict[str, list[Device]] = {}
        problems = []
        for address in sorted(workers):
            said = workers[address].get(agent.STARTUP_KEY)
            if not isinstance(said, dict):
                continue
            if said["version"] != ours:
                problems.append(f"the agent on {said['host']} runs wgtune {said['version']}, this is {ours}: left out")
                continue
            for data in said["devices"]:
                device = Device.from_json(data)
                found.setdefault(agent.resource_name(device), []).append(device)
        devices = [replace(d, index=i) for same in found.values() for i, d in enumerate(same)]
        return ClusterDevices(devices, problems)

    def wait_for_devices(self, timeout_s: float, waiting: Callable[[], None] = lambda: None) -> ClusterDevices:
        """Return `list_devices` as soon as there is a device; ``waiting`` is called once where there is none at first.

        Raises:
            DeviceError: No device joins within ``timeout_s`` seconds, or the scheduler does not answer any more.
        """
        deadline = time.monotonic() + timeout_s
        told = False
        while not (found := self.list_devices()).devices:
            if time.monotonic() > deadline:
                details = "".join(f"\n  {problem}" for problem in found.problems)
                raise DeviceError(
                    f"no agent lends a device at {self.scheduler}" + details,
                    f"on each machine with a GPU: wgtune agent --scheduler {self.scheduler}",
                )
            if not told:
                waiting()
                told = True
            time.sleep(_PAUSE_S)
        return found


class AgentSource:
    """A `DeviceSource` of the devices that a cluster's agents have."""

    def __init__(self, cluster: Cluster, keys: Collection[str] | None, every_s: float = 2.0) -> None:
        """Offer devices with one of ``keys``, None for all; ask the scheduler at most every ``every_s`` seconds."""
        self._cluster = cluster
        self._keys = keys
        self._every_s = every_s
        self._known: list[Device] = []
        self._asked = 0.0

    def available_devices(self) -> list[Device]:
        """Return the agents' devices, as `DeviceSource.available_devices`.

        When the scheduler is gone, return the same as before: the sessions report that themselves.
        """
        if time.monotonic() - self._asked >= self._every_s:
            self._asked = time.monotonic()
            with suppress(DeviceError):
                found = self._cluster.list_devices().devices
                self._known = [device for device in found if self._keys is None or device.key in self._keys]
        return self._known

    def unavailable_reason(self, device: Device) -> str:
        """Return why the device is not available, as `DeviceSource.unavailable_reason`."""
        return "no agent lends it any more"

    def awaited_device(self) -> str:
        """Return "": the command has waited for a first agent already."""
        return ""

    def join_instructions(self) -> str:
        """Return "": agents join by themselves."""
        return ""

    def local_worker(self, device: Device, timeouts: Timeouts) -> None:
        """Return None: each session's process is a client of the scheduler."""

    def release(self, device: Device) -> None:
        """Do nothing: other tuners may use the device."""


def connect(scheduler: str) -> Client:
    """Return a Dask client; raises DeviceError where no scheduler answers at the address."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # errors are reported as DeviceError
    try:
        return Client(scheduler, timeout=_CONNECT_S, set_as_default=False, name="wgtune")
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        line = first_line(error)
        raise DeviceError(
            f"no Dask scheduler answers at {scheduler}: {line}", "start one: dask scheduler --host 127.0.0.1"
        ) from error


def close(client: Client) -> None:
    """Close a connection, whether or not the scheduler still answers."""
    client.close(timeout=2)


def cluster_worker_opener(scheduler: str) -> OpenWorker:
    """Return a function that opens workers for devices of the agents at ``scheduler``."""
    return lambda device, timeouts: ClusterWorker(scheduler, device, timeouts)


class ClusterWorker:
    """A `MeasuringWorker` that measures on any agent with an equal device.

    A measurement waits while no such agent is connected. When its agent is lost, Dask gives it to another one.
    """

    def __init__(self, scheduler: str, device: Device, timeouts: Timeouts) -> None:
        """Connect; raises DeviceError where no scheduler answers at the address."""
        self._scheduler = scheduler
        self._device = device
        self._kind = agent.resource_name(device)
        self._timeouts = asdict(timeouts)
        self._client = connect(scheduler)
        self._digests: dict[tuple[Path, int, int], str] = {}

    def measure(self, job: MeasureJob) -> Measurement:
        """Measure a program on an agent, as `MeasuringWorker.measure`; send the case file where the agent lacks it."""
        data, digest = job_to_json(job), self._digest(job.case)
        for _ in range(_RESTARTS):
            answer = self._ask(agent.measure, self._kind, data, digest, self._timeouts)
            if "missing" not in answer:
                return measurement_from_json(answer["result"])
            self._send_case(answer["missing"], job.case, digest)
        raise DeviceError(
            f"no agent with a {self._device.key} keeps the case {job.case.name}", "look at the disks of the agents"
        )

    def calibrate(self) -> Peaks:
        """Measure peak rates on an agent, as `MeasuringWorker.calibrate`."""
        return Peaks(**self._ask(agent.calibrate, self._kind, self._timeouts)["result"])

    def close(self) -> None:
        """Close the connection. An agent that is measuring for it finishes that measurement first."""
        close(self._client)

    def _ask(self, function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """Return the answer of the agent that takes the task; raises DeviceError or WgtuneError for a refusal."""
        for _ in range(_RESTARTS):
            future: Future | None = None
            try:
                future = self._client.submit(function, *arguments, resources={self._kind: 1}, pure=False)
                answer: dict[str, Any] = future.result()
            except KilledWorker:
                # Candidates run in a child process of the agent: the agents were cut off, this candidate crashed none.
                continue
            except CancelledError as error:
                raise _scheduler_gone(self._scheduler) from error
            except (OSError, TimeoutError) as error:
                if self._client.status == "running":
                    time.sleep(_PAUSE_S)
                    continue
                raise _scheduler_gone(self._scheduler) from error
            except BaseException:
                if future is not None:
                    future.cancel()  # Ctrl-C: the result is not needed
                raise
            if "refused" in answer:
                kind = DeviceError if answer["device"] else WgtuneError
                raise kind(answer["refused"], answer["hint"])
            return answer
        raise DeviceError(
            f"every agent that measured on {self._device.key} was lost", "look at the agents; the same command goes on"
        )

    def _send_case(self, address: str, path: Path, digest: str) -> None:
        """Send a case file to one agent. Errors are not raised: the next attempt to measure finds the case missing."""
        size = path.stat().st_size
        with path.open("rb") as file:
            for offset in range(0, max(1, size), _CHUNK):
                data = file.read(_CHUNK)
                last = offset + _CHUNK >= size
                try:
                    self._client.run(agent.receive_case, digest, offset, data, last, workers=[address])
                except (OSError, TimeoutError, ValueError, KeyError):
                    time.sleep(_PAUSE_S)
                    return

    def _digest(self, path: Path) -> str:
        stat = path.stat()
        identity = (path, stat.st_mtime_ns, stat.st_size)
        if identity not in self._digests:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            self._digests[identity] = digest.hexdigest()
        return self._digests[identity]


def _scheduler_gone(scheduler: str) -> DeviceError:
    return DeviceError(
        f"the Dask scheduler at {scheduler} is gone", "start it again; the same command goes on where it stopped"
    )
