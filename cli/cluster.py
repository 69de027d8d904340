"""`--scheduler`: devices of the agents of a Dask cluster. Dask is optional, so it is imported only where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ..devices.device import Device
from ..devices.discovery.discovery import select_several
from ..support.console import note, warn
from ..support.errors import UsageError
from ..tuner.fleet.device_source import DeviceSource
from .inputs import split_specs

_AGENT_WAIT_S = 120.0
"""Seconds to wait for a first agent."""


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
