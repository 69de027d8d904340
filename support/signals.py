"""Stopping on Ctrl-C or SIGTERM without leaving anything half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

EXIT_STATUS = 130
"""What shells report of a process that Ctrl-C ended: 128 + SIGINT."""


class Interrupted(Exception):
    """The user asked to stop while something ran that may be cut short."""


class Interrupts:
    """A context in which the first SIGINT or SIGTERM asks to stop, and the second one ends the process at once.

    ``requested`` says that the first one came. Inside `cutting_short` it raises Interrupted as well. Outside the main
    thread, where Python cannot handle signals, the context does nothing.

    Args:
        on_request: called when the first signal comes, in the main thread between two bytecodes.
        on_leave: called before the process ends at the second one; it must not wait for anything.
    """

    def __init__(
        self, on_request: Callable[[], None] = lambda: None, on_leave: Callable[[], None] = lambda: None
    ) -> None:
        self.requested = False
        self._on_request = on_request
        self._on_leave = on_leave
        self._may_raise = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """What runs inside is given up when the user asks to stop, or asked before: raises Interrupted."""
        self._may_raise = True
        try:
            if self.requested:
                raise Interrupted
            yield
        finally:
            self._may_raise = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            try:
                self._on_leave()
            finally:
                # Nothing is lost that matters: ended trials are committed, and the next run finds the dead session.
                os._exit(EXIT_STATUS)
        self.requested = True
        self._on_request()
        if self._may_raise:
            self._may_raise = False
            raise Interrupted
