"""What a session needs next, prepared while its device measures: schedules proposed, WGSL emitted, references computed.

All of it runs in one thread, one piece after the other in the order in which it was asked for, and nothing of TVM runs
in the session's own thread meanwhile: no state of the search is ever seen by two threads, and what a piece of work
knows follows from the order, not from who was faster. The database, the device and the listeners stay with the
session's thread. A thread is enough: the session waits for an answer from the worker's process most of the time.

The driver compiles the next candidate meanwhile, too: each job names the program that is likely to come after it, and
the worker does with that what it can (`wgtune.devices.worker.worker`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from .phase_timer import PhaseTimer

T = TypeVar("T")
Work = Callable[[PhaseTimer], T]
"""A piece of work, which counts its seconds by phase on the stopwatch that it is given."""

_STACK_BYTES = 64 << 20
"""TVM walks deep trees by recursion, and macOS gives threads beside the first half a megabyte."""


class Pending(Generic[T]):
    """Work that was asked for."""

    def __init__(self, result: Callable[[], T], future: Future[T] | None = None) -> None:
        self._result = result
        self._future = future

    def glance(self) -> T | None:
        """What has come of it by now; None where it is not done, or failed."""
        future = self._future
        if future is None or not future.done() or future.cancelled() or future.exception() is not None:
            return None
        return future.result()

    def result(self) -> T:
        """What came of it, awaited or done now; raises what it raised. To be asked once."""
        return self._result()


class Prefetcher:
    """Prepares work in a thread of its own where ``overlapping``, and otherwise when its result is asked for.

    A context manager: what is not begun when it ends is dropped, and what is under way is awaited. An exception is
    raised where the result is asked for; of work that nobody asks for any more nothing is lost.

    Args:
        stopwatch: the session's. The time that it waits is its own; the rest is overlapped.
        overlapping: whether to have a thread at all.
    """

    def __init__(self, stopwatch: PhaseTimer, overlapping: bool) -> None:
        self.overlapping = overlapping
        self._stopwatch = stopwatch
        self._thread = _started_thread() if overlapping else None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def prepare(self, work: Work[T]) -> Pending[T]:
        """Begins ``work`` as soon as the work before it is done."""
        if self._thread is None:
            return Pending(lambda: work(self._stopwatch))
        own = PhaseTimer()
        future = self._thread.submit(work, own)
        return Pending(lambda: self._await(future, own), future)

    def do(self, work: Work[T]) -> T:
        """The result of ``work``, which is needed at once."""
        return self.prepare(work).result()

    def _await(self, future: Future[T], own: PhaseTimer) -> T:
        start = time.perf_counter()
        try:
            return future.result()
        finally:
            self._stopwatch.take_over(own.seconds, time.perf_counter() - start)


def _started_thread() -> ThreadPoolExecutor:
    """An executor whose only thread runs already, with a stack as large as TVM needs."""
    previous = threading.stack_size(_STACK_BYTES)
    try:
        executor = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        executor.submit(lambda: None)
    finally:
        threading.stack_size(previous)
    return executor
