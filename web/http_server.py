"""HTTP server in a thread of its own, over Tornado; used for bundles and for the measuring page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from ..support.errors import UsageError

HOST = "127.0.0.1"
"""Reachable from this machine only."""


class HttpServer:
    """Serves one Tornado application. Binds at once, and serves between `start` and `close`."""

    def __init__(self, host: str, port: int | None, default_port: int, tls: ssl.SSLContext | None = None) -> None:
        """Bind ``host`` and ``port``.

        Args:
            host: Host name or address.
            port: Port; 0 for any free one. None for ``default_port``, or any free one of `HOST` where that is taken.
            default_port: See ``port``.
            tls: Serves https with this context.

        Raises:
            UsageError: The port cannot be opened.
        """
        self._sockets = _bind(host, port, default_port)
        self._tls = tls
        self.port: int = self._sockets[0].getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing: asyncio.Event | None = None
        self._linger_s = 0.0

    def start(self, application: Application) -> None:
        """Serve ``application``; returns once connections are accepted."""
        started = threading.Event()

        def run() -> None:
            try:
                asyncio.run(self._serve(application, started))
            finally:
                started.set()  # where serving fails at once, `start` must return, too

        self._thread = threading.Thread(target=run, name="http-server", daemon=True)
        self._thread.start()
        started.wait()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call ``function`` in the server's thread, from any thread. Does nothing once the server has ended."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function)

    def close(self, linger_s: float = 0.0) -> None:
        """Close all connections after ``linger_s`` seconds, in which messages are still sent, and end the thread."""
        thread, self._thread = self._thread, None
        if thread is None:
            for each in self._sockets:
                each.close()
            return
        assert self._closing is not None
        self._linger_s = linger_s
        self.call_soon(self._closing.set)
        thread.join(10)

    async def _serve(self, application: Application, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        server = HTTPServer(application, ssl_options=self._tls)
        server.add_sockets(self._sockets)
        started.set()
        await self._closing.wait()
        await asyncio.sleep(self._linger_s)
        server.stop()
        await server.close_all_connections()


def _bind(host: str, port: int | None, default_port: int) -> list[socket.socket]:
    try:
        return bind_sockets(default_port if port is None else port, host)
    except OSError as error:
        if port is None and host == HOST:
            return bind_sockets(0, host)
        raise UsageError(
            f"port {port or default_port} on {host} cannot be opened: {error.strerror}",
            "name another with --port, or 0 for any free one",
        ) from error
