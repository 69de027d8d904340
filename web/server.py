"""Serves a bundle to browsers on this machine, and to nobody else."""

from __future__ import annotations

import hashlib
import sys
import webbrowser
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..support.errors import BundleError, UsageError
from .built_pages import app_dir

HOST = "127.0.0.1"
DEFAULT_PORT = 8000

# Spelled out, since Python's own table changes with the machine and browsers refuse modules of another type.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wgsl": "text/wgsl; charset=utf-8",
    ".bin": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}

_CHUNK = 1 << 20


class BundleServer(ThreadingHTTPServer):
    """Answers GET and HEAD for the files of one bundle on 127.0.0.1.

    The page is the bundle's own, else the installed one.


    Use as a context manager around ``serve_forever``. Raises BundleError where ``bundle`` is not a bundle, and
    UsageError where ``port`` is taken; port 0 takes any free one.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, bundle: Path, port: int = 0) -> None:
        if not (bundle / "manifest.json").is_file():
            raise BundleError(f"{bundle} is not a bundle: it has no manifest.json", "type: wgtune build --help")
        roots = [bundle.resolve()]
        if not (bundle / "index.html").is_file():
            roots.append(app_dir().resolve())
        self.roots = roots
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} on {HOST} cannot be opened: {error.strerror}",
                "name another port, or 0 for any free one",
            ) from error

    @property
    def url(self) -> str:
        """Where browsers find the page."""
        return f"http://{HOST}:{self.server_port}/"

    def find(self, target: str) -> Path | None:
        """The file that a request's target names, None where there is none inside the served folders."""
        try:
            relative = unquote(urlsplit(target).path, errors="strict").lstrip("/")
            for root in self.roots:
                # resolve() follows “..” and links, so what is compared is what would be opened.
                path = (root / (relative or "index.html")).resolve()
                if path.is_relative_to(root) and path.is_file():
                    return path
        except (ValueError, OSError):
            return None
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about browsers that go away; print anything else."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(bundle: Path, port: int | None = None, open_browser: bool = False) -> None:
    """Serve ``bundle`` until Ctrl-C, having printed its URL.

    ``port`` None means `DEFAULT_PORT`, or any free one where that is taken. Raises BundleError where ``bundle`` is not
    a bundle, and UsageError where a port that was asked for is taken.
    """
    try:
        with _server(bundle, port) as server:
            print(f"Serving {bundle} at {server.url}  (Ctrl-C ends it)", flush=True)
            if open_browser and not webbrowser.open(server.url):
                print("No browser could be started: open that address in one.", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        print()


def _server(bundle: Path, port: int | None) -> BundleServer:
    if port is not None:
        return BundleServer(bundle, port)
    try:
        return BundleServer(bundle, DEFAULT_PORT)
    except UsageError:
        return BundleServer(bundle, 0)


class _Handler(BaseHTTPRequestHandler):
    server: BundleServer
    protocol_version = "HTTP/1.1"
    # A connection that a browser keeps open without using it does not hold its thread for ever.
    timeout = 60

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.server.find(self.path)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        stat = path.stat()
        tag = '"' + hashlib.sha256(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}".encode()).hexdigest()[:32] + '"'
        if tag in self.headers.get("If-None-Match", ""):
            self._head(HTTPStatus.NOT_MODIFIED, {"ETag": tag})
            return
        headers = {
            "Content-Type": CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream"),
            "Content-Length": str(stat.st_size),
            "Last-Modified": formatdate(stat.st_mtime, usegmt=True),
            "ETag": tag,
        }
        self._head(HTTPStatus.OK, headers)
        if with_body:
            self._send(path)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        # Stored copies are checked each time: a rebuilt bundle shows at once.
        for name, value in {**headers, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, path: Path) -> None:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self.wfile.write(chunk)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line per file would bury the address."""
