"""Dask clusters: `wgtune agent`, and the devices of agents for `wgtune tune --scheduler`.

Dask is optional, so that it is imported only where it is used.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated

import typer

from ..devices.device import Device
from ..devices.discovery.discovery import select_several
from ..support.console import note, warn
from ..support.errors import UsageError
from ..support.signals import EXIT_STATUS
from ..tuner.fleet.device_source import DeviceSource
from .browser import BROWSER, CertificateOption, HostOption, KeyOption, PageOptions, PortOption, serve_browsers
from .inputs import found_devices, split_specs
from .options import DevicesOption

_AGENT_WAIT_S = 120.0
"""Seconds to wait for a first agent."""


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


def require_dask() -> None:
    """Raise UsageError where Dask is not installed."""
    if find_spec("distributed") is None:
        raise UsageError("Dask is not installed", "pip install 'wgtune[cluster]'")


def cluster_devices(scheduler: str, specs: Sequence[str] | None) -> tuple[list[Device], DeviceSource]:
    """Wait for agents at ``scheduler``, and return their devices that ``specs`` name, and the source of further ones.

    Without ``specs``, or with "all", these are the devices of all agents, and any agent may join later.

    Raises:
        UsageError: Dask is not installed.
        DeviceError: No scheduler answers, no agent joins in time, or no agent has a device that ``specs`` name.
    """
    require_dask()
    from ..tuner.fleet.dask_client import AgentSource, Cluster

    cluster = Cluster(scheduler)
    found = cluster.wait_for_devices(_AGENT_WAIT_S, lambda: note(f"waiting for an agent at {scheduler} …"))
    for problem in found.problems:
        warn(problem)
    if split_specs(specs) in ([], ["all"]):
        return found.devices, AgentSource(cluster, None)
    keys = {device.key for device in select_several(list(specs or ()), found.devices)}
    return [device for device in found.devices if device.key in keys], AgentSource(cluster, keys)
