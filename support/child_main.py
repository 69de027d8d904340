"""The child's side of `support.child_process`: JSON lines from standard input and on standard output."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from .errors import WgtuneError
from .json_lines import decode_line, encode_line
from .tvm_import import import_tvm_without_torch

Answer = Callable[[dict[str, Any]], None]
"""Function that sends one message to the parent. May be called from any thread."""

Requests = queue.SimpleQueue[dict[str, Any]]


def serve(main: Callable[[Requests, Answer], int], on_orphaned: Callable[[], None] = lambda: os._exit(0)) -> int:
    """Run ``main`` with the parent's requests, and return its exit status.

    A WgtuneError is answered as ``{"refused": message, "hint": hint}`` and gives status 1. SIGINT is ignored: the
    parent handles it.

    Args:
        main: Takes the queue of requests and the function that sends answers; returns the exit status.
        on_orphaned: Called in a thread of its own when standard input ends, which it does when the parent has ended in
            whatever way. By default this process ends at once, even while a driver hangs.
    """
    import_tvm_without_torch()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Drivers print to standard output: answers get a descriptor of their own, and all else goes to standard error.
    answer = _Answers(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: Requests = queue.SimpleQueue()
    # Not sys.stdin: Python aborts where a thread still reads it when the process ends.
    stream = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    threading.Thread(target=_read, args=(stream, requests, on_orphaned), daemon=True).start()
    try:
        return main(requests, answer)
    except WgtuneError as error:
        answer({"refused": error.message, "hint": error.hint})
        return 1


class _Answers:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._stream.write(encode_line(message))
            self._stream.flush()


def _read(stream: BinaryIO, requests: Requests, on_orphaned: Callable[[], None]) -> None:
    for line in stream:
        requests.put(decode_line(line))
    on_orphaned()
