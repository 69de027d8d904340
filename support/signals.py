"""Ctrl-C and SIGTERM: the first one asks to stop, the second one ends the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

EXIT_STATUS = 130
"""Exit status of a process that Ctrl-C ended, as shells report it: 128 + SIGINT."""


class Interrupted(Exception):
    """The user asked to stop during work that may be abandoned."""


class Interrupts:
    """Context in which the first SIGINT or SIGTERM asks to stop, and the second one ends the process at once.

    ``requested`` says whether the first one has come. Inside `cutting_short` it raises Interrupted as well. Outside the
    main thread, where Python cannot handle signals, the context does nothing.

    Args:
        on_request: Called in the main thread, between two bytecodes, when the first signal comes.
        on_leave: Called before the process ends at the second one; it must not wait for anything.
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
        """Yield to work that may be abandoned: raise Interrupted when the user asks to stop, or has asked before."""
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
                # Ended trials are committed, and the next run cleans up after the dead session.
                os._exit(EXIT_STATUS)
        self.requested = True
        self._on_request()
        if self._may_raise:
            self._may_raise = False
            raise Interrupted
