"""`--device browser`: options, and the page that lends a GPU while a command runs. Heavy imports are inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..support.console import note, warn

if TYPE_CHECKING:
    from ..devices.browser.page_registry import PageRegistry
    from ..devices.browser.server import BrowserServer
    from ..devices.device import Device
    from ..devices.worker.factory import OpenWorker

BROWSER = "browser"
"""What `--device` calls whichever browser opens the page."""

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
class Lent:
    """A browser that joined, and what makes workers that measure in it."""

    device: Device
    opener: OpenWorker


@contextmanager
def lending(
    specs: Sequence[str] | None, host: str, port: int | None, certificate: Path | None, key: Path | None
) -> Iterator[Lent | None]:
    """Where ``specs`` ask for a browser: serves the page, waits for a browser to open it, serves until the end.

    Raises:
        UsageError: other devices are named beside the browser, or a browser's options without one.
        DeviceError: no browser joins in time.
    """
    from ..support.errors import UsageError

    if not names_browser(specs):
        refuse_options(port, certificate, key)
        yield None
        return
    if len(specs or ()) > 1:
        raise UsageError("a browser is compared by itself", "name no other device beside it")
    from ..devices.browser.worker import BrowserWorker

    with page_served(note, host, port, certificate, key, at_most=1) as server:
        browser = server.registry.wait_for_first()
        note(f"{browser.device.model} in {browser.device.driver} joined as {browser.device.key}")
        yield Lent(browser.device, lambda device, timeouts: BrowserWorker(browser, timeouts))


@contextmanager
def browsers_lending(
    specs: Sequence[str] | None, host: str, port: int | None, certificate: Path | None, key: Path | None
) -> Iterator[PageRegistry | None]:
    """Where ``specs`` name a browser, too: serves the page until the end, to any number of browsers.

    Raises UsageError for a browser's options without one.
    """
    if not names_browser(specs):
        refuse_options(port, certificate, key)
        yield None
        return
    with page_served(lambda text: None, host, port, certificate, key, at_most=None) as server:
        yield server.registry


@contextmanager
def page_served(
    announce: Callable[[str], None],
    host: str,
    port: int | None,
    certificate: Path | None,
    key: Path | None,
    at_most: int | None,
) -> Iterator[BrowserServer]:
    """The server of the page, with a word on what keeps browsers from lending; as `BrowserServer` raises."""
    from ..devices.browser.server import BrowserServer
    from ..web.built_pages import lender_dir

    with BrowserServer(lender_dir(), announce, host, port, certificate, key, at_most=at_most) as server:
        if server.advice:
            warn(server.advice)
        yield server


def words_of(specs: Sequence[str] | None) -> list[str]:
    """The words that were given to `--device`, whether by commas or by repeating it."""
    return [word.strip() for spec in specs or () for word in spec.split(",") if word.strip()]


def names_browser(specs: Sequence[str] | None) -> bool:
    """Whether a browser is asked for, alone or beside other devices."""
    return BROWSER in words_of(specs)


def refuse_options(port: int | None, certificate: Path | None, key: Path | None) -> None:
    """Raises UsageError for a browser's options where no page is served."""
    from ..support.errors import UsageError

    if port is not None or certificate is not None or key is not None:
        raise UsageError(
            "--port, --certificate and --key are the page's", "name --device browser with them, on this machine"
        )
