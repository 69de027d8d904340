"""HTTP and WebSocket server of the measuring page.

WebGPU needs a secure context: a page from this machine (localhost, a forwarded port, too) or over https.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ...support.errors import DeviceError, UsageError
from ...web.http_server import HOST, HttpServer
from .identity import browser_device
from .page_link import CloseCode, PageLink
from .page_registry import PageRegistry

DEFAULT_PORT = 8765
WAIT_S = 600.0
"""Seconds to wait for a page."""

_THIS_MACHINE = frozenset({HOST, "localhost", "::1"})
_CHUNK = 1 << 20
_MAX_MESSAGE = 64 << 20
_PING_S = 10
"""Seconds after which a page that does not answer a ping is disconnected: it sleeps, or its network is gone."""

_MAX_REASON = 120
"""Bytes of a close frame's reason; the frame holds 123 (RFC 6455, section 5.5)."""
_LEFT = frozenset({1000, 1001})
"""Close codes (RFC 6455, section 7.4.1) of a page that is closed or left."""
_LINGER_S = 0.1
"""Seconds in which pages receive the message that they are released."""


class BrowserServer:
    """Serves the measuring page, while it is entered as a context manager. Pages that join are in ``registry``."""

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
        """Open the port.

        Args:
            app: Folder of the built page.
            announce: As `PageRegistry` takes it.
            host: Host name or address.
            port: As `HttpServer` takes it.
            certificate: PEM file, for https.
            key: PEM file of the certificate's private key, where it is not in ``certificate``.
            wait_s: As `PageRegistry` takes it.
            at_most: As `PageRegistry` takes it.

        Raises:
            UsageError: The port is taken, or the certificate cannot be read.
        """
        self.app = app
        self._host = host
        self._tls = _tls(certificate, key)
        self._server = HttpServer(host, port, DEFAULT_PORT, self._tls)
        self.registry = PageRegistry(self._address, announce, wait_s, at_most)

    def __enter__(self) -> BrowserServer:
        logging.getLogger("tornado").setLevel(logging.CRITICAL)  # refused requests are answered, not logged
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
        self._server.start(application)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.registry.close()
        self._server.close(_LINGER_S)

    @property
    def advice(self) -> str:
        """As `advice` on this server's host."""
        return "" if self._tls else advice(self._host, self._server.port)

    def call_soon(self, function: Callable[[], None]) -> None:
        """As `HttpServer.call_soon`."""
        self._server.call_soon(function)

    def _address(self, token: str) -> str:
        host = socket.gethostname() if self._host in ("0.0.0.0", "::", "") else self._host
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self._server.port}/?token={token}"


def advice(host: str, port: int) -> str:
    """Return why browsers of other machines get no WebGPU where ``host`` serves plain http; "" for this machine."""
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
        # A tab that had joined and was reloaded has a key, and no token: the page itself is not secret.
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
            try:
                await self.flush()
            except StreamClosedError:
                return  # the page was closed; its WebSocket tells
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
        """Register the page; return "", or why it may not join."""
        try:
            device = browser_device(greeting["adapter"])
        except (KeyError, TypeError, DeviceError):
            return "This page does not say what its GPU is."
        link = PageLink(key, device, self._send_soon, self._hang_up)
        refusal = self._server.registry.join(link)
        if not refusal:
            self.link = link
            self.write_message({"key": key})  # before any request of the tuner's threads
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
                return  # on_close is called

        self._server.call_soon(send)

    def _hang_up(self, code: CloseCode, reason: str) -> None:
        self._server.call_soon(lambda: self.close(code, _cut(reason)))


def _cut(reason: str) -> str:
    return reason.encode()[:_MAX_REASON].decode(errors="ignore")


def _decoded(message: str) -> Any:
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        return None


def _protect(handler: RequestHandler) -> None:
    handler.set_header("X-Content-Type-Options", "nosniff")
    handler.set_header("Referrer-Policy", "no-referrer")
    # Browsers give isolated pages a clock of higher resolution.
    handler.set_header("Cross-Origin-Opener-Policy", "same-origin")
    handler.set_header("Cross-Origin-Embedder-Policy", "require-corp")


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
