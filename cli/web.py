"""`wgtune web`: serve a bundle to a browser on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..web.server import serve


def web(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; by default 8000, or a free one.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
) -> None:
    """Serve a bundle on this machine only, for your browser. Ctrl-C ends it."""
    serve(bundle, port, open_browser)
