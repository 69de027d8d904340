"""Serves the page that lends a browser's GPU, and keeps the connection to the one page that does.

WebGPU needs a secure context: a page from this machine itself (localhost, a forwarded port too) or over https.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..errors import DeviceError, UsageError
from .browser_link import PageLink

HOST = "127.0.0.1"
DEFAULT_PORT = 8765
WAIT_S = 600.0
"""How long a run waits for a page."""

_JOIN_S = 3.0
_CHUNK = 1 << 20
_MAX_MESSAGE = 64 << 20
_PING_S = 10
"""A page that does not answer a ping within this time sleeps, or its network is gone."""

_OVER = 4000
_REOPEN = 4001
_REFUSED = 4403
_REASON = 120
"""Characters of a reason: a close frame holds 123 bytes (RFC 6455, section 5.5)."""
_LEFT = frozenset({1000, 1001})
"""Close codes (RFC 6455, section 7.4.1) of a page that is closed or left."""


class BrowserServer:
    """A server in a thread of its own; a context manager.

    One page at a time is let in: by a token in its address, which serves once, or by the key that it was given when it
    was here before. ``resources`` are arrays that the page may fetch, by name.
    """

    def __init__(
        self,
        app: Path,
        announce: Callable[[str], None],
        host: str = HOST,
        port: int | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        """``app`` is the built page's folder; ``announce`` receives each address to open, in words.

        Raises UsageError where ``port`` is taken, or the certificate cannot be read.
        """
        self.app = app
        self.resources: dict[str, np.ndarray] = {}
        self.fetched_bytes = 0
        self._announce = announce
        self._host = host
        self._wait_s = wait_s
        self._tls = _tls(certificate, key)
        self._sockets = _bind(host, port)
        self._port = self._sockets[0].getsockname()[1]
        self._token = secrets.token_urlsafe(16)
        self._page: PageLink | None = None
        self._handler: _Socket | None = None
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="browser-server", daemon=True)

    def __enter__(self) -> BrowserServer:
        started = threading.Event()
        self._started = started
        self._thread.start()
        started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = self._loop
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(10)

    @property
    def address(self) -> str:
        """What to open in a browser now; it serves once."""
        host = socket.gethostname() if self._host in ("0.0.0.0", "::", "") else self._host
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}/?token={self._token}"

    def wait_for_page(self, why: str = "") -> PageLink:
        """The page that is there, or the next that joins; raises DeviceError where none does in time."""
        deadline = time.monotonic() + self._wait_s
        told = ""
        told_s = 0.0
        while True:
            with self._changed:
                if self._page is not None and not self._page.gone:
                    return self._page
                token = self._token
            # An address that was opened in vain is told anew, but a page that opened it needs a moment to join.
            if told != token and time.monotonic() - told_s > _JOIN_S:
                self._announce(f"{why}open {self.address} in the browser whose GPU is to be tuned")
                if not told and not self._tls and self._host != HOST:
                    self._announce(
                        "over plain http browsers offer WebGPU to pages of their own machine only: give a certificate "
                        "with --certificate and --key, or leave --host out and forward the port "
                        f"(ssh -L {self._port}:{HOST}:{self._port})"
                    )
                told, told_s = token, time.monotonic()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise DeviceError(
                    f"no browser joined within {self._wait_s:g} s",
                    "type the same command again, which goes on where it stopped, and open the address that it prints",
                )
            with self._changed:
                if self._page is None or self._page.gone:
                    self._changed.wait(min(left_s, 0.5))

    def dismiss(self, page: PageLink, reason: str, *, for_good: bool) -> None:
        """Sends a page away; unless ``for_good`` it opens its GPU anew and comes back as soon as that works."""
        with self._changed:
            if for_good and self._page is page:
                self._page = None
            handler = self._handler
        page.end(deliberate=for_good)
        if handler is not None and handler.link is page:
            self._call(lambda: handler.close(_REFUSED if for_good else _REOPEN, reason[:_REASON]))

    # In the server's thread

    def admit(self, token: str, key: str) -> str | None:
        """The page's key; None where it is not let in."""
        with self._changed:
            if key and self._page is not None and _same(key, self._page.key):
                return key
            if token and _same(token, self._token):
                self._token = secrets.token_urlsafe(16)
                return secrets.token_urlsafe(24)
        return None

    def knows(self, token: str) -> bool:
        """Whether an address with this token may still join."""
        return _same(token, self._token)

    def may_fetch(self, key: str) -> bool:
        """Whether ``key`` is the page's that is there."""
        with self._changed:
            return self._page is not None and _same(key, self._page.key)

    def join(self, handler: _Socket, link: PageLink) -> None:
        """Takes a page for the one that lends."""
        with self._changed:
            before, self._page = self._page, link
            before_handler, self._handler = self._handler, handler
            self._changed.notify_all()
        if before is not None and not before.gone:
            before.end(deliberate=False)
            if before_handler is not None:
                before_handler.close(1001)

    def gone(self) -> None:
        """A page's connection has ended."""
        with self._changed:
            self._changed.notify_all()

    def _serve(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        logging.getLogger("tornado").setLevel(logging.CRITICAL)  # refusals are answers here, not news

        async def listen() -> None:
            shared = {"server": self}
            application = Application(
                [
                    (r"/", _Index, shared),
                    (r"/lend", _Socket, shared),
                    (r"/data/([^/]+)/([^/]+)", _Data, shared),
                    (r"/(assets/.*)", StaticFileHandler, {"path": str(self.app)}),
                ],
                websocket_ping_interval=_PING_S,
                websocket_ping_timeout=_PING_S,
                websocket_max_message_size=_MAX_MESSAGE,
                log_function=lambda handler: None,
            )
            self._http = HTTPServer(application, ssl_options=self._tls)
            self._http.add_sockets(self._sockets)
            self._started.set()

        loop.run_until_complete(listen())
        loop.run_forever()

    async def _end(self) -> None:
        if self._handler is not None:
            self._handler.close(_OVER)
            await asyncio.sleep(0.1)
        self._http.stop()
        await self._http.close_all_connections()

    def _call(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(what)


class _Index(RequestHandler):
    def initialize(self, server: BrowserServer) -> None:
        self._server = server

    def set_default_headers(self) -> None:
        _protect(self)

    def get(self) -> None:
        if not self._server.knows(self.get_query_argument("token", "")):
            self.set_status(403)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish("An address serves one page once. Open the one that wgtune shows now, in the terminal.\n")
            return
        self.set_header("Cache-Control", "no-store")
        self.finish((self._server.app / "index.html").read_bytes())


class _Data(RequestHandler):
    def initialize(self, server: BrowserServer) -> None:
        self._server = server

    def set_default_headers(self) -> None:
        _protect(self)

    async def get(self, key: str, name: str) -> None:
        array = self._server.resources.get(name)
        if array is None or not self._server.may_fetch(key):
            raise HTTPError(404)
        data = array.reshape(-1).view(np.uint8)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Length", str(data.nbytes))
        self.set_header("Cache-Control", "no-store")
        for offset in range(0, data.nbytes, _CHUNK):
            self.write(data[offset : offset + _CHUNK].tobytes())
            await self.flush()
        self._server.fetched_bytes += data.nbytes


class _Socket(WebSocketHandler):
    link: PageLink | None = None

    def initialize(self, server: BrowserServer) -> None:
        self._server = server
        self._admitted: str | None = None

    def open(self, *args: str, **kwargs: str) -> None:
        self._admitted = self._server.admit(self.get_query_argument("token", ""), self.get_query_argument("key", ""))
        if self._admitted is None:
            self.close(_REFUSED, "This address has been used, or tuning has ended.")

    def on_message(self, message: str | bytes) -> None:
        if self.link is not None:
            if isinstance(message, bytes):
                self.link.put(message)
            elif isinstance(content := _decoded(message), dict):
                self.link.put(content)
        elif self._admitted is not None and isinstance(message, str):
            adapter = _decoded(message)
            if not isinstance(adapter, dict) or not isinstance(adapter.get("adapter"), dict):
                self.close(_REFUSED, "This page does not say what its GPU is.")
                return
            self.link = PageLink(self._admitted, adapter["adapter"], self._send_soon)
            self.write_message({"key": self._admitted})
            self._server.join(self, self.link)

    def on_close(self) -> None:
        if self.link is not None and not self.link.gone:
            self.link.end(self.close_code in _LEFT)
            self._server.gone()

    def _send_soon(self, message: Any) -> None:
        def send() -> None:
            try:
                self.write_message(message)
            except WebSocketClosedError:
                return  # on_close tells

        self._server._call(send)


def _decoded(message: str) -> Any:
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        return None


def _protect(handler: RequestHandler) -> None:
    handler.set_header("X-Content-Type-Options", "nosniff")
    handler.set_header("Referrer-Policy", "no-referrer")
    # Isolated pages get the finer of the two clocks that browsers have.
    handler.set_header("Cross-Origin-Opener-Policy", "same-origin")
    handler.set_header("Cross-Origin-Embedder-Policy", "require-corp")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _bind(host: str, port: int | None) -> list[socket.socket]:
    try:
        return bind_sockets(DEFAULT_PORT if port is None else port, host)
    except OSError as error:
        if port is None and host == HOST:
            return bind_sockets(0, host)
        raise UsageError(
            f"port {port or DEFAULT_PORT} on {host} cannot be opened: {error.strerror}", "name another with --port"
        ) from error


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            raise UsageError("--key goes with --certificate", "name both, as PEM files")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the certificate {certificate} cannot be used: {error}", "name a PEM certificate and its --key"
        ) from error
    return context
