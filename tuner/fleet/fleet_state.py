"""State of a fleet: a pure state machine that takes events and returns instructions.

It starts no thread or process, reads no clock and does no input or output, so that tests can drive it event by event.
`wgtune.tuner.fleet.fleet` feeds it with what happens and carries out what it returns. A session's process has a number
that is never used again: whatever comes late from a process that was replaced is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...devices.device import Device
from ..session.events import SessionEnded, TrialEnded, TuneSummary
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
from .listener import DeviceOutcome
from .session_protocol import MeasureRequest, Refusal

MAX_RESTARTS = 3
"""How many times in a row a session's process is started again when no trial ends in between."""

OVERTIME_S = 900.0
"""How many seconds a session may exceed its minutes: its last trial or reference may still be running."""


@dataclass
class _DeviceState:
    """One device's session.

    Attributes:
        process: Number of the session's current process; None while none runs.
        deaths_in_a_row: Deaths of its processes since a trial last ended.
        ended: Whether no process runs any more and none will.
    """

    name: str
    device: Device
    from_source: bool
    process: int | None = None
    available: bool = True
    summary: TuneSummary | None = None
    error: str = ""
    hint: str = ""
    restarts: int = 0
    deaths_in_a_row: int = 0
    ended: bool = False


class FleetState:
    """Sessions of all devices, from joining to outcome."""

    def __init__(self, started: float, minutes: float | None) -> None:
        """Start without devices; ``minutes`` from time ``started`` on is the limit of every session, None for none."""
        self.awaited = ""
        """Name for a device that must still join; "" where none must."""
        self._started = started
        self._minutes = minutes
        self._devices: list[_DeviceState] = []
        self._processes_started = 0
        self._never_joined: DeviceOutcome | None = None
        self._join_instructions = ""
        self._stopping = False

    @property
    def finished(self) -> bool:
        """Whether no session runs any more and no device is awaited."""
        return all(state.ended for state in self._devices) and (not self.awaited or self._stopping)

    def outcomes(self) -> list[DeviceOutcome]:
        """Return each device's outcome so far, in the order in which they joined; an awaited device comes last."""
        found = [DeviceOutcome(s.name, s.summary, s.error, s.hint, s.restarts) for s in self._devices]
        if self._never_joined is not None:
            found.append(self._never_joined)
        elif self.awaited:
            found.append(DeviceOutcome(self.awaited, None))
        return found

    def handle(self, event: FleetEvent) -> list[Instruction]:
        """Take in ``event``, and return what is to be done about it, in this order."""
        return list(self._handle(event))

    def _handle(self, event: FleetEvent) -> Iterator[Instruction]:
        match event:
            case DeviceJoined():
                yield from self._device_joined(event)
            case DeviceLeft():
                yield from self._set_availability(event.device, False, event.reason)
            case DeviceAwaited():
                yield from self._await_device(event.name)
            case DeviceNeverJoined():
                yield from self._device_never_joined(event)
            case JoinInstructions():
                if event.text != self._join_instructions:
                    self._join_instructions = event.text
                    yield NotifyJoinInstructions(event.text)
            case SessionMessage():
                yield from self._session_message(event)
            case ProcessExited():
                yield from self._process_exited(event)
            case TimePassed():
                yield from self._time_passed(event.at)
            case StopRequested():
                self._stopping = True
                yield NotifyStopping(event.at_once)
                for state in self._devices:
                    if state.process is not None:
                        yield StopSession(state.process)

    def _device_joined(self, event: DeviceJoined) -> Iterator[Instruction]:
        if any(state.from_source and state.device == event.device for state in self._devices):
            yield from self._set_availability(event.device, True)
            return
        if self._stopping:
            return
        state = _DeviceState(event.name or self._new_name(event.device), event.device, event.from_source)
        self._devices.append(state)
        self._never_joined = None
        yield self._start_process(state, event.at)

    def _new_name(self, device: Device) -> str:
        """Return the device's key, with its index where a device of the fleet has the same key."""
        taken = any(state.device.key == device.key for state in self._devices)
        return f"{device.key} [{device.index}]" if taken else device.key

    def _set_availability(self, device: Device, available: bool, reason: str = "") -> Iterator[Instruction]:
        for state in self._devices:
            if state.from_source and state.device == device and not state.ended and state.available is not available:
                state.available = available
                yield NotifyAvailability(state.name, available, reason)

    def _await_device(self, name: str) -> Iterator[Instruction]:
        if name != self.awaited:
            self.awaited = name
            yield NotifyAwaited(name)

    def _device_never_joined(self, event: DeviceNeverJoined) -> Iterator[Instruction]:
        self._never_joined = DeviceOutcome(self.awaited, None, event.message, event.hint)
        yield NotifyFailure(self.awaited, event.message, restarting=False)
        yield from self._await_device("")

    def _session_message(self, event: SessionMessage) -> Iterator[Instruction]:
        state = self._owner(event.process)
        if state is None:
            return
        match event.output:
            case MeasureRequest():
                yield ServeMeasurement(event.process, state.name, event.output)
            case Refusal():
                state.error, state.hint = event.output.message, event.output.hint
                yield NotifyFailure(state.name, state.error, restarting=False)
            case _:
                if isinstance(event.output, TrialEnded):
                    state.deaths_in_a_row = 0
                if isinstance(event.output, SessionEnded):
                    state.summary = event.output.summary
                yield NotifyEvent(state.name, event.output)

    def _process_exited(self, event: ProcessExited) -> Iterator[Instruction]:
        state = self._owner(event.process)
        if state is None:
            return
        state.process = None
        if state.summary is not None or state.error or self._stopping:
            yield from self._end(state)
            return
        state.deaths_in_a_row += 1
        reason = f"its session's process {event.reason}"
        restarting = state.deaths_in_a_row <= MAX_RESTARTS
        yield NotifyFailure(state.name, reason, restarting)
        if restarting:
            state.restarts += 1
            yield self._start_process(state, event.at)
        else:
            yield from self._give_up(state, reason)

    def _time_passed(self, at: float) -> Iterator[Instruction]:
        if self._minutes is not None and at > self._started + 60 * self._minutes + OVERTIME_S:
            for state in self._devices:
                if state.process is not None:
                    reason = f"its session did not end within {OVERTIME_S:g} s of its minutes"
                    process, state.process = state.process, None
                    yield NotifyFailure(state.name, reason, restarting=False)
                    yield KillProcess(process)
                    yield from self._give_up(state, reason)
        yield NotifyTick()

    def _start_process(self, state: _DeviceState, at: float) -> StartProcess:
        self._processes_started += 1
        state.process = self._processes_started
        minutes = self._minutes
        if minutes is not None:
            minutes = max(0.0, minutes - (at - self._started) / 60)
        return StartProcess(state.process, state.name, state.device, minutes)

    def _give_up(self, state: _DeviceState, reason: str) -> Iterator[Instruction]:
        state.error, state.hint = reason, "the same command goes on where the last trial ended"
        yield from self._end(state)

    def _end(self, state: _DeviceState) -> Iterator[Instruction]:
        state.ended = True
        if state.from_source:
            yield ReleaseDevice(state.device)

    def _owner(self, process: int) -> _DeviceState | None:
        """Return the device whose current process has this number."""
        return next((state for state in self._devices if state.process == process), None)
