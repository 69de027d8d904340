"""`wgtune agent`."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from ..support.console import note
from ..support.signals import EXIT_STATUS
from .browser import BROWSER, CertificateOption, HostOption, KeyOption, PageOptions, PortOption, serve_browsers
from .cluster import require_dask
from .inputs import found_devices, split_specs
from .options import DevicesOption


def agent(
    context: typer.Context,
    scheduler: Annotated[
        str, typer.Option("--scheduler", metavar="URL", help="The Dask scheduler, as in tcp://host:8786.")
    ],
    device: DevicesOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
) -> None:
    """Lend this machine's devices to `wgtune tune --scheduler`, through a Dask cluster. Ctrl-C ends it.

    By default all of its GPUs. The agent measures and verifies; search and database are the tuner's. Cut off from the
    scheduler, it joins again by itself. Whoever reaches the scheduler can run code here: use a network that you trust.
    With `--device browser`, alone or among others, each browser that opens the address printed lends its GPU, too.
    """
    require_dask()
    from ..tuner.fleet.dask_agent import serve_agent

    registry = context.with_resource(serve_browsers(device, PageOptions(host, port, certificate, key)))
    others = [word for word in split_specs(device) if word != BROWSER]
    devices = found_devices(others or ["all"]) if others or registry is None else []
    asyncio.run(serve_agent(scheduler, devices, note, registry=registry))
    context.close()  # tells the pages that the agent has ended
    # Python would wait for a measurement in one of Dask's threads. The measuring process ends with this one.
    os._exit(EXIT_STATUS)
