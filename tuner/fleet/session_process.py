"""One device's session in a process of its own: the child's side of `wgtune.tuner.fleet.fleet`.

Started as ``python -m wgtune.tuner.fleet.session_process``; messages are JSON objects, one a line.

| request | answers |
|---|---|
| `{"task": task}` | `{"event": name, "data": fields}` …, the last of them SessionEnded |
| `{"stop": true}` | the session ends as if Ctrl-C had been typed; a second one ends the process |
| `{"answer": n, …}` | none: it answers a question of the session's own (`wgtune.tuner.fleet.measure_proxy`) |

What a user can mend ends in `{"refused": message, "hint": hint}`. When the parent is gone, the session ends too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

from ...devices.worker.factory import OpenWorker, open_worker
from ...support.child_main import Answer, Requests, serve
from ...support.serialization import from_plain, restored_fields, to_plain
from ...support.signals import EXIT_STATUS
from ..ir import CaptureOptions
from ..session.events import Event, Stopping
from .measure_proxy import RelayedWorker

_ORPHAN_GRACE_S = 10.0
"""Time for a clean end when the parent is gone."""

_EVENTS = {kind.__name__: kind for kind in get_args(Event)}


@dataclass(frozen=True)
class SessionTask:
    """What a session's process is told: the model as the user names it, the fields of its TuneRequest, the database.

    ``request`` lacks the capture, which the process takes from the cache. ``scheduler`` is the address of a Dask
    scheduler whose agents reach the device, "" for a device of this machine. ``relayed``: the parent measures.
    """

    model: str
    options: CaptureOptions
    request: dict[str, Any]
    database: str | None
    scheduler: str = ""
    relayed: bool = False


def event_to_json(event: Event) -> dict[str, Any]:
    """An event as JSON values."""
    return {"event": type(event).__name__, "data": to_plain(event)}


def event_from_json(message: dict[str, Any]) -> Event:
    """The inverse of `event_to_json`; raises KeyError, TypeError or ValueError on data of another shape."""
    event: Event = from_plain(_EVENTS[message["event"]], message["data"])
    return event


def main(requests: Requests, answer: Answer) -> int:
    """Runs the session that the first request asks for."""
    # Before and after the session nothing is lost by ending at once; meanwhile its own handler is in place.
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_STATUS))
    task = from_plain(SessionTask, requests.get()["task"])
    relayed = RelayedWorker(answer)
    threading.Thread(target=_obey, args=(requests, relayed), daemon=True).start()
    from ...database.store import Store
    from ..capture.model_capture import capture_model
    from ..capture.sources import resolve_model
    from ..session.request import TuneRequest
    from ..session.session import tune

    fields = restored_fields(TuneRequest, task.request)
    capture = capture_model(resolve_model(task.model), task.options, fields["stages"])
    request = TuneRequest(capture=capture, **fields)
    opener: OpenWorker = open_worker
    if task.relayed:
        opener = relayed.opener
    elif task.scheduler:
        from .dask_client import cluster_opener

        opener = cluster_opener(task.scheduler)
    with Store.open(task.database) as store:
        tune(request, store, _Teller(answer), opener)
    return 0


class _Teller:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def on(self, event: Event) -> None:
        if isinstance(event, Stopping):
            # It comes out of a signal's handler, which may have cut into this thread's own telling: that would wait
            # for this, and this for that.
            threading.Thread(target=self._tell, args=(event,), daemon=True).start()
        else:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        with suppress(OSError):  # nobody listens any more: the session is about to be told to end
            self._answer(event_to_json(event))


def _obey(requests: Requests, relayed: RelayedWorker) -> None:
    while True:
        request = requests.get()
        if "answer" in request:
            relayed.take(request)
        elif "stop" in request:
            _interrupt()


def _interrupt() -> None:
    """What Ctrl-C does, whatever the main thread waits for."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _orphaned() -> None:
    _interrupt()
    time.sleep(_ORPHAN_GRACE_S)
    os._exit(EXIT_STATUS)


if __name__ == "__main__":
    sys.exit(serve(main, _orphaned))
