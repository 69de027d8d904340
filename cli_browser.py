"""`--device browser`: options, and the page that lends a GPU while a command runs. Heavy imports are inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import note

if TYPE_CHECKING:
    from .devices.device import Device
    from .devices.opening import OpenWorker

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
    from .errors import UsageError

    if not specs or BROWSER not in specs:
        if port is not None or certificate is not None or key is not None:
            raise UsageError("--port, --certificate and --key are the page's", "name --device browser with them")
        yield None
        return
    if list(specs) != [BROWSER]:
        raise UsageError("a browser is tuned by itself", "run a second `wgtune tune` for the other devices")
    from .devices.browser import BrowserWorker, browser_device
    from .devices.browser_server import BrowserServer
    from .web import lender_dir

    with BrowserServer(lender_dir(), note, host, port, certificate, key) as server:
        device = browser_device(server.wait_for_page().adapter)
        note(f"{device.model} in {device.driver} joined as {device.key}")
        yield Lent(device, lambda wanted, timeouts: BrowserWorker(server, wanted, timeouts))
