"""One page that lends its browser's GPU, seen from the tuner's thread: requests, answers, pieces of data, its end."""

from __future__ import annotations

import itertools
import queue
import struct
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from ..device import Device

BYTES_PER_S = 1e6
"""The slowest network that is waited for."""


class CloseCode(IntEnum):
    """With which code the tuner closes a page's connection; web/lender/main.ts knows them."""

    OVER = 4000
    """Tuning has ended."""
    REOPEN = 4001
    """The page is to open its GPU anew, and to come back."""
    REFUSED = 4403
    """The page is not let in."""


class PageGone(Exception):
    """The page's connection ended. ``deliberate``: the page was closed or left, which is no fault of any program."""

    def __init__(self, deliberate: bool) -> None:
        super().__init__("its page was closed" if deliberate else "its page broke off")
        self.deliberate = deliberate


class PageTimeout(Exception):
    """The page did not answer in time."""


class PageFault(Exception):
    """The page could not do what it was asked; ``fault`` says of which kind (``Fault`` in web/lender/protocol.ts)."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class PageLink:
    """A page that has joined. The server's thread puts in what arrives; the tuner's asks.

    ``device`` is its GPU. ``hang_up`` closes the connection, with a code and a reason; for any thread.
    """

    def __init__(
        self, key: str, device: Device, send: Callable[[Any], None], hang_up: Callable[[CloseCode, str], None]
    ) -> None:
        self.key = key
        self.device = device
        self.hang_up = hang_up
        self.received_bytes = 0
        self._send = send
        self._inbox: queue.SimpleQueue[dict[str, Any] | bytes | PageGone] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._gone: PageGone | None = None

    @property
    def gone(self) -> bool:
        """Whether the connection has ended."""
        return self._gone is not None

    @property
    def left(self) -> bool:
        """Whether somebody closed the page."""
        return self._gone is not None and self._gone.deliberate

    def put(self, message: dict[str, Any] | bytes) -> None:
        """Takes what the page sent; called by the server."""
        self._inbox.put(message)

    def end(self, deliberate: bool) -> None:
        """The connection is over; called by the server."""
        self._gone = PageGone(deliberate)
        self._inbox.put(self._gone)

    def tell(self, operation: str, content: dict[str, Any]) -> None:
        """Has an operation begun whose result is nobody's concern."""
        if self._gone is None:
            self._send({"id": next(self._numbers), "op": operation, **content})

    def ask(
        self, operation: str, content: dict[str, Any], timeout_s: float, take: Callable[[bytes], None] | None = None
    ) -> Any:
        """The result of one operation; pieces of data that belong to it go to ``take``, and each extends the time.

        Raises PageGone, PageTimeout and PageFault.
        """
        if self._gone is not None:
            raise self._gone
        number = next(self._numbers)
        self._send({"id": number, "op": operation, **content})
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                message = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise PageTimeout() from None
            if isinstance(message, PageGone):
                raise message
            if isinstance(message, bytes):
                # An answer to an earlier question may still be under way: nobody waits for that.
                if take is not None and message[:4] == struct.pack("<I", number):
                    self.received_bytes += len(message) - 4
                    take(message[4:])
                    deadline = time.monotonic() + timeout_s
            elif message.get("id") == number:
                if "fault" in message:
                    raise PageFault(str(message["fault"]), str(message.get("message", "")))
                return message.get("result")
