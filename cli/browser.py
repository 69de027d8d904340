"""`--device browser`: its options, and the page that gives access to a browser's GPU while a command runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..devices.browser.page_registry import PageRegistry
from ..devices.browser.server import BrowserServer
from ..devices.browser.worker import BrowserWorker
from ..devices.device import Device
from ..devices.worker.factory import OpenWorker
from ..support.console import note, warn
from ..support.errors import UsageError
from ..web.built_pages import lender_dir
from .inputs import split_specs

BROWSER = "browser"
"""The word of `--device` for any browser that opens the page."""

HostOption = Annotated[
    str, typer.Option(help="With --device browser: where the page is served. Others than this machine need https.")
]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="With --device browser: the page's port; by default 8765, or a free one."),
]
CertificateOption = Annotated[
    Path | None, typer.Option(help="With --device browser: a PEM certificate, to serve the page over https.")
]
KeyOption = Annotated[Path | None, typer.Option(help="The certificate's private key, where it is a file of its own.")]


@dataclass(frozen=True)
class PageOptions:
    """Where the page is served: `--host`, `--port`, `--certificate` and `--key`."""

    host: str
    port: int | None
    certificate: Path | None
    key: Path | None

    def refuse(self) -> None:
        """Raise UsageError where an option is given though no page is served."""
        if self.port is not None or self.certificate is not None or self.key is not None:
            raise UsageError(
                "--port, --certificate and --key are the page's", "name --device browser with them, on this machine"
            )


@dataclass(frozen=True)
class ConnectedBrowser:
    """A browser whose page is connected: its GPU, and the function that opens workers which measure on it."""

    device: Device
    opener: OpenWorker


@contextmanager
def serve_one_browser(spec: str, options: PageOptions) -> Iterator[ConnectedBrowser | None]:
    """Serve the page to one browser while the context is open, and yield the browser once it has joined.

    Yield None where ``spec``, a word of `--against`, names no browser.

    Raises:
        UsageError: Other devices are named beside the browser, or a page's options without a browser.
        DeviceError: No browser joins in time.
    """
    words = split_specs([spec])
    if BROWSER not in words:
        options.refuse()
        yield None
        return
    if len(words) > 1:
        raise UsageError("a browser is compared by itself", "name no other device beside it")
    with _serve_page(note, options, at_most=1) as server:
        browser = server.registry.wait_for_first()
        note(f"{browser.device.model} in {browser.device.driver} joined as {browser.device.key}")
        yield ConnectedBrowser(browser.device, lambda device, timeouts: BrowserWorker(browser, timeouts))


@contextmanager
def serve_browsers(specs: Sequence[str] | None, options: PageOptions) -> Iterator[PageRegistry | None]:
    """Serve the page to any number of browsers while the context is open, and yield their registry.

    Yield None where ``specs``, the words of `--device`, name no browser.

    Raises:
        UsageError: A page's options are given without a browser.
    """
    if BROWSER not in split_specs(specs):
        options.refuse()
        yield None
        return
    with _serve_page(lambda text: None, options, at_most=None) as server:
        yield server.registry


@contextmanager
def _serve_page(announce: Callable[[str], None], options: PageOptions, at_most: int | None) -> Iterator[BrowserServer]:
    """Serve the page to ``at_most`` browsers, and warn of what may keep browsers from joining."""
    with BrowserServer(
        lender_dir(), announce, options.host, options.port, options.certificate, options.key, at_most=at_most
    ) as server:
        if server.advice:
            warn(server.advice)
        yield server
