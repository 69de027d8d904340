"""Work prepared in the background while the device measures: proposals, lowered programs, references.

All work runs in one thread, in the order in which it was submitted, and the session's own thread does not call TVM
meanwhile. So two threads never see the same search state, and what a piece of work knows follows from the order of
submission, not from timing. The database, the device and the listeners stay with the session's thread. One thread is
enough, because the session's thread mostly waits for the worker process.

The driver compiles the next program meanwhile as well: each job names the program that is likely to follow, and a
worker that can compile it does (see `wgtune.devices.worker.worker`).
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
"""A piece of work. It adds its seconds by phase to the timer that it is given."""

_STACK_BYTES = 64 << 20
"""TVM recurses over deep trees, and macOS gives threads other than the main one a stack of 512 KiB."""


class Prefetched(Generic[T]):
    """The result of submitted work."""

    def __init__(self, result: Callable[[], T], future: Future[T] | None = None) -> None:
        self._result = result
        self._future = future

    def peek(self) -> T | None:
        """Return the result without waiting; None if the work is not done or failed."""
        future = self._future
        if future is None or not future.done() or future.cancelled() or future.exception() is not None:
            return None
        return future.result()

    def result(self) -> T:
        """Wait for the result, or do the work now if there is no background thread. To be called once.

        Raises:
            Exception: whatever the work raised.
        """
        return self._result()


class Prefetcher:
    """Runs work in a background thread if ``overlapping``, else at the time its result is asked for.

    A context manager. On exit, work that has not started is cancelled and running work is waited for. An exception of
    the work is raised where its result is asked for. Work whose result is never asked for is lost without harm.

    Args:
        timer: of the session. Time that the session waits for results is the session's own; the rest is overlapped.
        overlapping: whether to start a thread.
    """

    def __init__(self, timer: PhaseTimer, overlapping: bool) -> None:
        self.overlapping = overlapping
        self._timer = timer
        self._executor = _start_executor() if overlapping else None

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def submit(self, work: Work[T]) -> Prefetched[T]:
        """Start ``work`` as soon as the work submitted before it is done."""
        if self._executor is None:
            return Prefetched(lambda: work(self._timer))
        own = PhaseTimer()
        future = self._executor.submit(work, own)
        return Prefetched(lambda: self._wait(future, own), future)

    def run(self, work: Work[T]) -> T:
        """Return the result of ``work``, done after the work submitted before it."""
        return self.submit(work).result()

    def _wait(self, future: Future[T], own: PhaseTimer) -> T:
        start = time.perf_counter()
        try:
            return future.result()
        finally:
            self._timer.add_background(own.seconds, time.perf_counter() - start)


def _start_executor() -> ThreadPoolExecutor:
    """Return an executor whose single thread already runs, with a stack large enough for TVM."""
    previous = threading.stack_size(_STACK_BYTES)
    try:
        executor = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        executor.submit(lambda: None)
    finally:
        threading.stack_size(previous)
    return executor
