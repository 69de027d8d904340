"""A session's process: runs one session, and reports its events to the fleet in the parent process.

Started as ``python -m wgtune.tuner.fleet.session_process``. `session_protocol` describes the messages. When the parent
process is gone, the session ends too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress

from ...devices.worker.factory import OpenWorker, open_worker
from ...support.child_main import Answer, Requests, serve
from ...support.serialization import from_plain, restored_fields
from ...support.signals import EXIT_STATUS
from ..session.events import Event, Stopping
from .measure_proxy import ProxyWorker
from .session_protocol import SessionTask, event_to_json

_ORPHAN_GRACE_S = 10.0
"""Seconds for the session to end cleanly when the parent process is gone."""


def main(requests: Requests, answer: Answer) -> int:
    """Run the session that the first message asks for, and return the exit status."""
    # Before and after the session, ending at once loses nothing. The session installs a handler of its own.
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_STATUS))
    task = from_plain(SessionTask, requests.get()["task"])
    proxy = ProxyWorker(answer)
    threading.Thread(target=_handle_messages, args=(requests, proxy), daemon=True).start()
    # These load TVM, which takes seconds. The thread above is to react to a stop meanwhile.
    from ...database.store import Store
    from ..capture.model_capture import capture_model
    from ..capture.sources import resolve_model
    from ..session.request import TuneRequest
    from ..session.session import tune

    fields = restored_fields(TuneRequest, task.request)
    capture = capture_model(resolve_model(task.model), task.options, fields["stages"])
    request = TuneRequest(capture=capture, **fields)
    opener: OpenWorker = open_worker
    if task.proxied:
        opener = proxy.open
    elif task.scheduler:
        from .dask_client import cluster_worker_opener

        opener = cluster_worker_opener(task.scheduler)
    with Store.open(task.database) as store:
        tune(request, store, _EventSender(answer), opener)
    return 0


class _EventSender:
    """Listener that sends the session's events to the parent process."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def on(self, event: Event) -> None:
        if isinstance(event, Stopping):
            # It comes from a signal's handler, which may have interrupted this thread while it sends: sending here
            # would wait for a lock that this thread holds.
            threading.Thread(target=self._send, args=(event,), daemon=True).start()
        else:
            self._send(event)

    def _send(self, event: Event) -> None:
        with suppress(OSError):  # the parent process is gone, and the session is about to be interrupted
            self._answer(event_to_json(event))


def _handle_messages(requests: Requests, proxy: ProxyWorker) -> None:
    while True:
        request = requests.get()
        if "answer" in request:
            proxy.deliver(request)
        elif "stop" in request:
            _interrupt()


def _interrupt() -> None:
    """Do what Ctrl-C does, whatever the main thread waits for."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _on_orphaned() -> None:
    _interrupt()
    time.sleep(_ORPHAN_GRACE_S)
    os._exit(EXIT_STATUS)


if __name__ == "__main__":
    sys.exit(serve(main, _on_orphaned))
