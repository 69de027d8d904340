"""Events that `FleetState` takes, and instructions that it returns. Times are seconds of one monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass

from ...devices.device import Device
from ..session.events import Event
from .session_protocol import MeasureRequest, SessionOutput

# Events.


@dataclass(frozen=True)
class DeviceJoined:
    """A device was chosen, or a device source has it available (again).

    ``name`` is "" for a name made from the device's key. ``from_source`` says whether a device source has the device.
    """

    at: float
    device: Device
    name: str = ""
    from_source: bool = True


@dataclass(frozen=True)
class DeviceLeft:
    """A device source has the device no longer available, for ``reason``."""

    device: Device
    reason: str


@dataclass(frozen=True)
class DeviceAwaited:
    """A device called ``name`` must still join; "" where none must any more."""

    name: str


@dataclass(frozen=True)
class DeviceNeverJoined:
    """The awaited device did not join in time."""

    message: str
    hint: str


@dataclass(frozen=True)
class JoinInstructions:
    """How another device can join now."""

    text: str


@dataclass(frozen=True)
class SessionMessage:
    """A session's process sent ``output``."""

    process: int
    output: SessionOutput


@dataclass(frozen=True)
class ProcessExited:
    """A session's process has ended; ``reason`` continues the words "its session's process"."""

    at: float
    process: int
    reason: str


@dataclass(frozen=True)
class TimePassed:
    """The time is ``at``: deadlines may have passed."""

    at: float


@dataclass(frozen=True)
class StopRequested:
    """The user asked to stop: the first time sessions end cleanly, the second time, ``at_once``, immediately."""

    at_once: bool = False


FleetEvent = (
    DeviceJoined
    | DeviceLeft
    | DeviceAwaited
    | DeviceNeverJoined
    | JoinInstructions
    | SessionMessage
    | ProcessExited
    | TimePassed
    | StopRequested
)


# Instructions.


@dataclass(frozen=True)
class StartProcess:
    """Start a session's process for the device called ``name``; ``minutes`` is its time limit, None for none."""

    process: int
    name: str
    device: Device
    minutes: float | None


@dataclass(frozen=True)
class StopSession:
    """Ask the process to end its session, or, the second time, to end at once."""

    process: int


@dataclass(frozen=True)
class KillProcess:
    """Kill the process."""

    process: int


@dataclass(frozen=True)
class ServeMeasurement:
    """Measure what the process requests on the device called ``name``, and send it the answer."""

    process: int
    name: str
    request: MeasureRequest


@dataclass(frozen=True)
class ReleaseDevice:
    """Tell the device source that the device's session has ended."""

    device: Device


@dataclass(frozen=True)
class NotifyEvent:
    """Call `FleetListener.on`."""

    name: str
    event: Event


@dataclass(frozen=True)
class NotifyFailure:
    """Call `FleetListener.session_failed`."""

    name: str
    reason: str
    restarting: bool


@dataclass(frozen=True)
class NotifyAvailability:
    """Call `FleetListener.availability_changed`."""

    name: str
    available: bool
    reason: str = ""


@dataclass(frozen=True)
class NotifyAwaited:
    """Call `FleetListener.awaiting_device`."""

    name: str


@dataclass(frozen=True)
class NotifyJoinInstructions:
    """Call `FleetListener.join_instructions_changed`."""

    text: str


@dataclass(frozen=True)
class NotifyStopping:
    """Call `FleetListener.stopping`."""

    at_once: bool


@dataclass(frozen=True)
class NotifyTick:
    """Call `FleetListener.tick`."""


Instruction = (
    StartProcess
    | StopSession
    | KillProcess
    | ServeMeasurement
    | ReleaseDevice
    | NotifyEvent
    | NotifyFailure
    | NotifyAvailability
    | NotifyAwaited
    | NotifyJoinInstructions
    | NotifyStopping
    | NotifyTick
)
