"""HTTP server for one bundle on this machine."""

from __future__ import annotations

import hashlib
import logging
import time
import webbrowser
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

from tornado.web import Application, HTTPError, StaticFileHandler

from ..support.errors import BundleError
from .built_pages import app_dir
from .http_server import HOST, HttpServer

DEFAULT_PORT = 8000

# Python's own table differs between machines, and browsers refuse modules of another type.
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


class BundleServer:
    """Answers GET and HEAD for the files of one bundle on 127.0.0.1, while it is entered as a context manager.

    The page is the bundle's own, else the installed one.
    """

    def __init__(self, bundle: Path, port: int | None = 0) -> None:
        """Open ``port``; 0 for any free one, None for `DEFAULT_PORT`, or any free one where that is taken.

        Raises:
            BundleError: ``bundle`` is not a bundle.
            UsageError: ``port`` is taken.
        """
        if not (bundle / "manifest.json").is_file():
            raise BundleError(f"{bundle} is not a bundle: it has no manifest.json", "type: wgtune build --help")
        self._roots = [bundle.resolve()]
        if not (bundle / "index.html").is_file():
            self._roots.append(app_dir().resolve())
        self._server = HttpServer(HOST, port, DEFAULT_PORT)

    def __enter__(self) -> BundleServer:
        # Warnings are about single requests, which their status code answers.
        logging.getLogger("tornado.general").setLevel(logging.ERROR)
        routes = [(r"/.*", _BundleFile, {"path": str(self._roots[0]), "server": self})]
        self._server.start(Application(routes, log_function=lambda handler: None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def port(self) -> int:
        """The port that is open."""
        return self._server.port

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.port}/"

    def find(self, target: str) -> Path | None:
        """Return the file that a request's target names, None where there is none inside the served folders."""
        try:
            relative = unquote(urlsplit(target).path, errors="strict").lstrip("/")
            for root in self._roots:
                # resolve() follows “..” and links, so what is compared is what would be opened.
                path = (root / (relative or "index.html")).resolve()
                if path.is_relative_to(root) and path.is_file():
                    return path
        except (ValueError, OSError):
            return None
        return None


def serve(bundle: Path, port: int | None = None, open_browser: bool = False) -> None:
    """Serve ``bundle`` until Ctrl-C, after printing its URL; arguments and errors as `BundleServer`."""
    try:
        with BundleServer(bundle, port) as server:
            print(f"Serving {bundle} at {server.url}  (Ctrl-C ends it)", flush=True)
            if open_browser and not webbrowser.open(server.url):
                print("No browser could be started: open that address in one.", flush=True)
            _wait_for_interrupt()
    except KeyboardInterrupt:
        print()


def _wait_for_interrupt() -> None:
    while True:
        time.sleep(3600)


class _BundleFile(StaticFileHandler):
    def initialize(self, path: str, server: BundleServer) -> None:  # type: ignore[override]
        super().initialize(path)
        self._server = server

    async def get(self, path: str = "", include_body: bool = True) -> None:
        # The undecoded target: Tornado would answer 400 where it is no UTF-8.
        await super().get(self.request.uri or "/", include_body)

    async def head(self, path: str = "") -> None:
        await self.get(path, include_body=False)

    def get_absolute_path(self, root: str, path: str) -> str:  # type: ignore[override]
        found = self._server.find(path)
        if found is None:
            raise HTTPError(404)
        return str(found)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str:
        return absolute_path  # `BundleServer.find` has checked it

    def compute_etag(self) -> str:
        # Tornado's own reads the whole file.
        stat = Path(self.absolute_path or "").stat()
        text = f"{self.absolute_path}\0{stat.st_mtime_ns}\0{stat.st_size}"
        return '"' + hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32] + '"'

    def get_content_type(self) -> str:
        return CONTENT_TYPES.get(Path(self.absolute_path or "").suffix.lower(), "application/octet-stream")

    def set_extra_headers(self, path: str) -> None:
        # Stored copies are checked each time: a rebuilt bundle shows at once.
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
