"""A server that fails as networks and hosts do: connections that break off, HTML with status 200, no ranges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler

from wgtune.web.http_server import HOST, HttpServer
from wgtune.web.server import CONTENT_TYPES

CHUNK = 1 << 16


@dataclass
class Fault:
    """What goes wrong with one answer."""

    status: int = 200
    body: bytes | None = None
    """Sent instead of the file, as HTML."""
    cut_after: int | None = None
    """Bytes after which the connection is closed."""
    ranges: bool = True
    bytes_per_second: float | None = None


@dataclass
class Asked:
    """One request for a file: its path in the folder and the first byte asked for."""

    path: str
    start: int


@dataclass
class FaultyServer:
    """Serves ``folder`` while entered; ``fault`` says of each request what goes wrong with it."""

    folder: Path
    fault: Callable[[Asked], Fault] = lambda asked: Fault()
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> FaultyServer:
        self._server = HttpServer(HOST, 0, 0)
        self._server.start(Application([(r"/(.*)", _File, {"server": self})], log_function=lambda handler: None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.port}/"

    def starts(self, path: str) -> list[int]:
        """First bytes of the requests for the file ``path``."""
        return [asked.start for asked in self.asked if asked.path == path]


class _File(RequestHandler):
    def initialize(self, server: FaultyServer) -> None:
        self._server = server

    async def get(self, path: str) -> None:
        path = path or "index.html"
        file = self._server.folder / path
        first, _, last = self.request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        asked = Asked(path, int(first))
        fault = self._server.fault(asked)
        self._server.asked.append(asked)
        if fault.status != 200 or not file.is_file():
            self.set_status(fault.status if fault.status != 200 else 404)
            return
        data = file.read_bytes() if fault.body is None else fault.body
        self.set_header("Cache-Control", "no-cache")
        kind = "text/html" if fault.body is not None else CONTENT_TYPES.get(file.suffix, "application/octet-stream")
        self.set_header("Content-Type", kind)
        if "Range" in self.request.headers and fault.ranges and fault.body is None:
            end = min(int(last or len(data)), len(data) - 1) + 1
            self.set_status(206)
            self.set_header("Content-Range", f"bytes {first}-{end - 1}/{len(data)}")
            data = data[int(first) : end]
        self.set_header("Content-Length", str(len(data)))
        sent = 0
        try:
            while sent < len(data):
                if fault.cut_after is not None and sent >= fault.cut_after:
                    self.request.connection.stream.close()  # type: ignore[union-attr]
                    return
                part = data[sent : min(sent + CHUNK, fault.cut_after or len(data))]
                self.write(part)
                await self.flush()
                sent += len(part)
                if fault.bytes_per_second is not None:
                    await asyncio.sleep(len(part) / fault.bytes_per_second)
        except StreamClosedError:
            return
