"""Serves the page that lends a browser's GPU, and keeps the connections to the pages that do.

WebGPU needs a secure context: a page from this machine itself (localhost, a forwarded port too) or over https.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ...support.errors import DeviceError, UsageError
from .identity import browser_device
from .page_link import CloseCode, PageLink
from .page_registry import PageRegistry

HOST = "127.0.0.1"
DEFAULT_PORT = 8765
WAIT_S = 600.0
"""How long a run waits for a page."""

_THIS_MACHINE = frozenset({HOST, "localhost", "::1"})
_CHUNK = 1 << 20
_MAX_MESSAGE = 64 << 20
_PING_S = 10
"""A page that does not answer a ping within this time sleeps, or its network is gone."""

_REASON = 120
"""Bytes of a reason: a close frame holds 123 (RFC 6455, section 5.5)."""
_LEFT = frozenset({1000, 1001})
"""Close codes (RFC 6455, section 7.4.1) of a page that is closed or left."""


class BrowserServer:
    """A server in a thread of its own; a context manager. ``registry`` are what the pages that it let in lend."""

    def __init__(
        self,
        app: Path,
        announce: Callable[[str], None],
        host: str = HOST,
        port: int | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        wait_s: float = WAIT_S,
        at_most: int | None = None,
    ) -> None:
        """``app`` is the built page's folder; the rest is as `PageRegistry` takes it.

        Raises UsageError where ``port`` is taken, or the certificate cannot be read.
        """
        self.app = app
        self._host = host
        self._tls = _tls(certificate, key)
        self._sockets = _bind(host, port)
        self._port = self._sockets[0].getsockname()[1]
        self.registry = PageRegistry(self._address, announce, wait_s, at_most)
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
        self.registry.close()
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(10)

    @property
    def advice(self) -> str:
        """As `advice` on this server's host."""
        return "" if self._tls else advice(self._host, self._port)

    def _address(self, token: str) -> str:
        host = socket.gethostname() if self._host in ("0.0.0.0", "::", "") else self._host
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}/?token={token}"

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
        await asyncio.sleep(0.1)  # so that pages hear that it is over
        self._http.stop()
        await self._http.close_all_connections()

    def _call(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(what)


def advice(host: str, port: int) -> str:
    """What keeps browsers of other machines from lending where ``host`` serves plain http, "" for this machine."""
    if host in _THIS_MACHINE:
        return ""
    return (
        "over plain http browsers offer WebGPU to pages of their own machine only: give a certificate with "
        f"--certificate and --key, or leave --host out and forward the port (ssh -L {port}:{HOST}:{port})"
    )


class _Index(RequestHandler):
    def initialize(self, server: BrowserServer) -> None:
        self._server = server

    def set_default_headers(self) -> None:
        _protect(self)

    def get(self) -> None:
        # A tab that lent before, and was reloaded, has a key of its own: the page itself is nobody's secret.
        token = self.get_query_argument("token", "")
        if token and not self._server.registry.accepts(token):
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
        browser = self._server.registry.find(key)
        array = browser.resources.get(name) if browser is not None else None
        if browser is None or array is None:
            raise HTTPError(404)
        data = array.reshape(-1).view(np.uint8)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Length", str(data.nbytes))
        self.set_header("Cache-Control", "no-store")
        for offset in range(0, data.nbytes, _CHUNK):
            self.write(data[offset : offset + _CHUNK].tobytes())
            await self.flush()
        browser.fetched_bytes += data.nbytes


class _Socket(WebSocketHandler):
    link: PageLink | None = None

    def initialize(self, server: BrowserServer) -> None:
        self._server = server
        self._admitted: str | None = None

    def open(self, *args: str, **kwargs: str) -> None:
        registry = self._server.registry
        self._admitted = registry.admit(self.get_query_argument("token", ""), self.get_query_argument("key", ""))
        if self._admitted is None:
            self.close(CloseCode.REFUSED, "This address has been used, or tuning has ended.")

    def on_message(self, message: str | bytes) -> None:
        if self.link is not None:
            if isinstance(message, bytes):
                self.link.put(message)
            elif isinstance(content := _decoded(message), dict):
                self.link.put(content)
        elif self._admitted is not None and isinstance(message, str):
            refusal = self._join(self._admitted, _decoded(message))
            if refusal:
                self._admitted = None
                self.close(CloseCode.REFUSED, _cut(refusal))

    def _join(self, key: str, greeting: Any) -> str:
        """Lets the page lend; why it may not, else ""."""
        try:
            device = browser_device(greeting["adapter"])
        except (KeyError, TypeError, DeviceError):
            return "This page does not say what its GPU is."
        link = PageLink(key, device, self._send_soon, self._hang_up)
        refusal = self._server.registry.join(link)
        if not refusal:
            self.link = link
            self.write_message({"key": key})  # before anything that the tuner's threads ask of the page
        return refusal

    def on_close(self) -> None:
        if self.link is not None and not self.link.gone:
            self.link.end(self.close_code in _LEFT)
            self._server.registry.page_disconnected()

    def _send_soon(self, message: Any) -> None:
        def send() -> None:
            try:
                self.write_message(message)
            except WebSocketClosedError:
                return  # on_close tells

        self._server._call(send)

    def _hang_up(self, code: CloseCode, reason: str) -> None:
        self._server._call(lambda: self.close(code, _cut(reason)))


def _cut(reason: str) -> str:
    return reason.encode()[:_REASON].decode(errors="ignore")


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
