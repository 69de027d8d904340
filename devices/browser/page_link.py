"""Connection to one page, used from the tuner's thread: requests, answers, binary data, and its end."""

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
"""Transfer rate below which a transfer times out."""


class CloseCode(IntEnum):
    """WebSocket close codes that the tuner sends; web/lender/main.ts handles them."""

    OVER = 4000
    """Tuning has ended."""
    REOPEN = 4001
    """The page must reopen its GPU, and join again."""
    REFUSED = 4403
    """The page is not admitted."""


class PageGone(Exception):
    """The page's connection ended. ``deliberate``: the page was closed or left, which is not a program's fault."""

    def __init__(self, deliberate: bool) -> None:
        super().__init__("its page was closed" if deliberate else "its page broke off")
        self.deliberate = deliberate


class PageTimeout(Exception):
    """The page did not answer in time."""


class PageFault(Exception):
    """An operation failed in the page. ``fault`` is its kind (``Fault`` in web/lender/protocol.ts)."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class PageLink:
    """Connection to a page that has joined. The server's thread delivers messages, the tuner's thread makes requests.

    ``device`` is the page's GPU. ``hang_up`` closes the connection with a code and a reason, from any thread.
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
        """Deliver a message of the page. Called by the server."""
        self._inbox.put(message)

    def end(self, deliberate: bool) -> None:
        """Mark the connection as ended. Called by the server."""
        self._gone = PageGone(deliberate)
        self._inbox.put(self._gone)

    def tell(self, operation: str, content: dict[str, Any]) -> None:
        """Start an operation without waiting for its result."""
        if self._gone is None:
            self._send({"id": next(self._numbers), "op": operation, **content})

    def ask(
        self, operation: str, content: dict[str, Any], timeout_s: float, take: Callable[[bytes], None] | None = None
    ) -> Any:
        """Run one operation in the page.

        Args:
            operation: Name of the operation (web/lender/protocol.ts).
            content: Its arguments.
            timeout_s: Seconds to wait for the answer, or for the next piece of data.
            take: Called with each piece of binary data that belongs to the operation.

        Returns:
            The operation's result.

        Raises:
            PageGone: The connection ended.
            PageTimeout: The page did not answer in time.
            PageFault: The operation failed.
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
                # Data of an earlier operation that timed out may still arrive: ignore it.
                if take is not None and message[:4] == struct.pack("<I", number):
                    self.received_bytes += len(message) - 4
                    take(message[4:])
                    deadline = time.monotonic() + timeout_s
            elif message.get("id") == number:
                if "fault" in message:
                    raise PageFault(str(message["fault"]), str(message.get("message", "")))
                return message.get("result")
