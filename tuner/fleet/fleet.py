"""Tuning on several devices side by side: a process with a session for each, run by this process.

Each device has its own search, worker, queue and session in the database, so that a slow or dead device delays no
other. A session's process that dies (TVM and drivers do crash) is started again, and continues after its last
committed trial. A browser's page is connected to this process, which measures on behalf of its session.

`FleetState` decides what is done. This module owns what it decides about: processes, threads, queue and clock.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ...devices.device import Device
from ...devices.discovery.discovery import labels
from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.enums import Runtime
from ...support.errors import DeviceError
from ...support.serialization import to_plain
from ...support.signals import Interrupts
from ..ir import CaptureOptions
from ..session.request import TuneRequest
from .device_source import DeviceSource
from .fleet_events import (
    DeviceAwaited,
    DeviceJoined,
    DeviceLeft,
    DeviceNeverJoined,
    FleetEvent,
    Instruction,
    JoinInstructions,
    KillProcess,
    NotifyAvailability,
    NotifyAwaited,
    NotifyEvent,
    NotifyFailure,
    NotifyJoinInstructions,
    NotifyStopping,
    NotifyTick,
    ProcessExited,
    ReleaseDevice,
    ServeMeasurement,
    SessionMessage,
    StartProcess,
    StopRequested,
    StopSession,
    TimePassed,
)
from .fleet_state import FleetState
from .listener import FleetListener, FleetSummary
from .measure_proxy import ProxyServer
from .session_protocol import STOP, SessionTask, output_from_json

_MODULE = "wgtune.tuner.fleet.session_process"

_TICK_S = 0.25
"""Seconds to wait for an event before time passes."""


@dataclass(frozen=True)
class FleetRequest:
    """What the sessions of a fleet have in common.

    Attributes:
        model: The model as the user names it.
        options: How it is captured.
        request: The request of every session; its device and minutes are replaced.
        database: The database's URL; None for the user's own.
        scheduler: Address of the Dask scheduler whose agents have the devices; "" for devices of this machine.
    """

    model: str
    options: CaptureOptions
    request: TuneRequest
    database: str | None
    scheduler: str = ""

    def session_task(self, device: Device, minutes: float | None) -> SessionTask:
        """Return the task of one device's session, with ``minutes`` left; None for no limit."""
        request = replace(self.request, device=device, minutes=minutes)
        plain = to_plain(request, without=("capture",))
        proxied = device.runtime is Runtime.BROWSER and not self.scheduler
        return SessionTask(self.model, self.options, plain, self.database, self.scheduler, proxied)

    def may_leave(self, device: Device) -> bool:
        """Return whether the device may leave and come back while the fleet tunes."""
        return bool(self.scheduler) or device.runtime is Runtime.BROWSER


def tune_fleet(
    fleet: FleetRequest,
    devices: Sequence[Device],
    listener: FleetListener,
    source: DeviceSource | None = None,
) -> FleetSummary:
    """Tune on all of ``devices`` side by side, each as `wgtune.tuner.session.session.tune` does.

    The first SIGINT or SIGTERM ends all sessions cleanly, the second one ends all processes at once. Where this process
    is killed, the sessions end by themselves. Failures of devices raise nothing: the summary reports them.

    Args:
        fleet: What the sessions have in common.
        devices: Devices to start with.
        listener: Observer of the sessions.
        source: Source of devices that join and leave. A device that joins gets a session too; the session of a device
            that has left waits for it.
    """
    runner = _Runner(fleet, listener, source)
    with Interrupts(on_request=runner.request_stop, on_leave=runner.stop_at_once) as interrupts:
        try:
            runner.start(devices)
            while not runner.state.finished:
                runner.handle_next(_TICK_S)
                if not interrupts.requested:
                    runner.poll_source()
        finally:
            runner.kill_all()
    return FleetSummary(tuple(runner.state.outcomes()), interrupts.requested)


class _Runner:
    """Feeds a `FleetState` with events, and carries out its instructions, in the main thread.

    One thread per session's process reads what the process sends.
    """

    def __init__(self, fleet: FleetRequest, listener: FleetListener, source: DeviceSource | None) -> None:
        self.state = FleetState(time.monotonic(), fleet.request.minutes)
        self._fleet = fleet
        self._listener = listener
        self._source = source
        self._available: list[Device] = []
        self._processes: dict[int, Child] = {}
        self._proxies: dict[str, ProxyServer | None] = {}
        self._inbox: queue.SimpleQueue[FleetEvent | tuple[int, dict[str, Any]]] = queue.SimpleQueue()

    def start(self, devices: Sequence[Device]) -> None:
        """Start a session on each of ``devices``."""
        if self._source is not None:
            self._handle(DeviceAwaited(self._source.awaited_device()))
        for name, device in zip(labels(devices), devices, strict=True):
            from_source = self._source is not None and self._fleet.may_leave(device)
            if from_source:
                self._available.append(device)
            self._handle(DeviceJoined(time.monotonic(), device, name, from_source))

    def handle_next(self, wait_s: float) -> None:
        """Handle the next event, if one comes within ``wait_s`` seconds, and the time that has passed."""
        with suppress(queue.Empty):
            received = self._inbox.get(timeout=wait_s)
            if isinstance(received, tuple):
                process, message = received
                self._handle(SessionMessage(process, output_from_json(message)))
            else:
                self._handle(received)
        self._handle(TimePassed(time.monotonic()))

    def poll_source(self) -> None:
        """Handle what has changed in the device source."""
        if self._source is None:
            return
        before, now = self._available, list(self._source.available_devices())
        self._available = now
        for device in before:
            if device not in now:
                self._handle(DeviceLeft(device, self._source.unavailable_reason(device)))
        for device in now:
            if device not in before:
                self._handle(DeviceJoined(time.monotonic(), device))
        if self.state.awaited:
            try:
                self._handle(DeviceAwaited(self._source.awaited_device()))
            except DeviceError as error:
                self._handle(DeviceNeverJoined(error.message, error.hint))
        self._handle(JoinInstructions(self._source.join_instructions()))

    def request_stop(self) -> None:
        """Have all sessions end cleanly. Safe in a signal's handler: what the main thread is doing ends first."""
        self._inbox.put(StopRequested())

    def stop_at_once(self) -> None:
        """Have all processes end at once. Called in a signal's handler, after which this process ends."""
        self._handle(StopRequested(at_once=True))

    def kill_all(self) -> None:
        """Kill the processes that still run."""
        for child in self._processes.values():
            child.kill()

    def _handle(self, event: FleetEvent) -> None:
        if isinstance(event, ProcessExited):
            self._kill(event.process)  # closes its pipes, and ends a process that has only closed them itself
        for instruction in self.state.handle(event):
            self._execute(instruction)

    def _execute(self, instruction: Instruction) -> None:
        match instruction:
            case StartProcess():
                self._start_process(instruction)
            case StopSession():
                self._send(instruction.process, STOP)
            case KillProcess():
                self._kill(instruction.process)
            case ServeMeasurement():
                proxy, child = self._proxies[instruction.name], self._processes[instruction.process]
                if proxy is not None:
                    proxy.serve(instruction.request.message, child.send)
            case ReleaseDevice():
                if self._source is not None:
                    self._source.release(instruction.device)
            case NotifyEvent():
                self._listener.on(instruction.name, instruction.event)
            case NotifyFailure():
                self._listener.session_failed(instruction.name, instruction.reason, restarting=instruction.restarting)
            case NotifyAvailability():
                self._listener.availability_changed(instruction.name, instruction.available, instruction.reason)
            case NotifyAwaited():
                self._listener.awaiting_device(instruction.name)
            case NotifyJoinInstructions():
                self._listener.join_instructions_changed(instruction.text)
            case NotifyStopping():
                self._listener.stopping(instruction.at_once)
            case NotifyTick():
                self._listener.tick()

    def _start_process(self, start: StartProcess) -> None:
        if start.name not in self._proxies:
            self._proxies[start.name] = self._make_proxy(start.device)
        child = self._processes[start.process] = Child(_MODULE)
        task = self._fleet.session_task(start.device, start.minutes)
        self._send(start.process, {"task": to_plain(task)})
        threading.Thread(target=self._read, args=(start.process, child), daemon=True).start()

    def _make_proxy(self, device: Device) -> ProxyServer | None:
        if self._source is None or not self._fleet.may_leave(device):
            return None
        worker = self._source.local_worker(device, self._fleet.request.timeouts)
        return ProxyServer(worker) if worker is not None else None

    def _read(self, process: int, child: Child) -> None:
        """Put what a process sends into the inbox, until it ends. Runs in a thread of its own."""
        while True:
            try:
                self._inbox.put((process, child.receive(time.monotonic() + 3600)))
            except ChildTimeout:
                continue
            except ChildDied as died:
                self._inbox.put(ProcessExited(time.monotonic(), process, str(died)))
                return

    def _send(self, process: int, message: dict[str, Any]) -> None:
        child = self._processes.get(process)
        if child is not None:
            with suppress(ChildDied):  # its reader reports that it has ended
                child.send(message)

    def _kill(self, process: int) -> None:
        child = self._processes.pop(process, None)
        if child is not None:
            child.kill()
