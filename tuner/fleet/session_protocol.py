"""Messages between a fleet and a session's process: JSON objects, one per line.

| from the fleet | meaning |
|---|---|
| `{"task": task}` | The session to run; the first message. |
| `{"stop": true}` | End the session as Ctrl-C does. A second one ends the process. |
| `{"answer": n, …}` | Answer to a request (`measure_proxy`). |

| from the session's process | meaning |
|---|---|
| `{"event": name, "data": fields}` | An event of the session; the last one is SessionEnded. |
| `{"ask": n, …}` | A request to measure (`measure_proxy`). |
| `{"refused": message, "hint": hint}` | An error that the user can mend; the session does not run. |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from ...support.serialization import from_plain, to_plain
from ..ir import CaptureOptions
from ..session.events import Event

STOP = {"stop": True}
"""The message that stops a session."""

_EVENTS = {kind.__name__: kind for kind in get_args(Event)}


@dataclass(frozen=True)
class SessionTask:
    """What a session's process is to do.

    Attributes:
        model: The model as the user names it.
        options: How it is captured.
        request: Fields of the `TuneRequest` as JSON values, without the capture, which the process takes from its
            cache.
        database: The database's URL; None for the user's own.
        scheduler: Address of the Dask scheduler whose agents have the device; "" for a device of this machine.
        proxied: Whether the parent process measures.
    """

    model: str
    options: CaptureOptions
    request: dict[str, Any]
    database: str | None
    scheduler: str = ""
    proxied: bool = False


@dataclass(frozen=True)
class Refusal:
    """An error that the user can mend, because of which the session does not run."""

    message: str
    hint: str


@dataclass(frozen=True)
class MeasureRequest:
    """A request of the session's `ProxyWorker`, for the parent's `ProxyServer`."""

    message: dict[str, Any]


SessionOutput = Event | Refusal | MeasureRequest


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event as a message."""
    return {"event": type(event).__name__, "data": to_plain(event)}


def event_from_json(message: dict[str, Any]) -> Event:
    """Invert `event_to_json`; raises KeyError, TypeError or ValueError on data of another shape."""
    event: Event = from_plain(_EVENTS[message["event"]], message["data"])
    return event


def output_from_json(message: dict[str, Any]) -> SessionOutput:
    """Return what a message of the session's process says; raises as `event_from_json`."""
    if "ask" in message:
        return MeasureRequest(message)
    if "refused" in message:
        return Refusal(message["refused"], message["hint"])
    return event_from_json(message)
