"""`wgtune tune` and `wgtune agent`. Imports inside keep `--help` fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..support.console import note, stderr, stdout, warn
from ..support.enums import CacheState
from .browser import (
    BROWSER,
    CertificateOption,
    HostOption,
    KeyOption,
    PortOption,
    browsers_lending,
    refuse_options,
    words_of,
)
from .inputs import capture_options, captured, found_devices
from .options import (
    BatchOption,
    DbOption,
    DevicesOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    ModelOption,
    SchedulerOption,
    StageOption,
    StepsOption,
    TierOption,
    WidthOption,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..devices.browser.page_registry import PageRegistry
    from ..devices.device import Device
    from ..tuner.fleet.dask_client import Cluster
    from ..tuner.fleet.device_source import DeviceSource
    from ..tuner.fleet.fleet import FleetRequest

_AGENT_WAIT_S = 120.0
"""How long `tune --scheduler` waits for a first agent."""


def tune(
    context: typer.Context,
    model: ModelOption,
    device: DevicesOption = None,
    stage: StageOption = None,
    kernels: Annotated[
        list[str] | None,
        typer.Option("--kernels", help="Only kernels of this name, id or pattern (`conv2d*`); may be repeated."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=0, help="Trials per kernel on average, split by time; 32, or no limit with --minutes."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop after so many minutes.")] = None,
    tier: TierOption = "default",
    steps: StepsOption = 20,
    width: WidthOption = None,
    height: HeightOption = None,
    batch: BatchOption = 1,
    guidance: GuidanceOption = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search and of the inputs.")] = 0,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    scheduler: SchedulerOption = None,
    cache: Annotated[
        CacheState,
        typer.Option(help="What a timed run finds in the caches: what the last run left (warm), or nothing (cold)."),
    ] = CacheState.WARM,
    transfer: Annotated[
        bool,
        typer.Option("--transfer/--no-transfer", help="Try the best schedules of related devices before searching."),
    ] = True,
    overlap: Annotated[
        bool | None,
        typer.Option(
            "--overlap/--no-overlap",
            help="Search, build and compile while the device measures; by default not on software adapters and the "
            "CPU, whose times that would spoil.",
        ),
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Tune a model's kernels on a GPU, or side by side on several.

    Ctrl-C stops; the same command goes on where it stopped. With several devices each has a process and a session of
    its own, and the command exits with 3 where one of them could not go on. `--device browser`, alone or among others,
    prints an address: each browser that opens one lends its GPU, and must stay open.
    """
    from ..database.store import Store
    from ..devices.limits import find_tier
    from ..devices.worker.factory import open_worker
    from ..reports.live.session import session_display
    from ..tuner.session.request import TuneRequest
    from ..tuner.session.session import tune as run_session

    limits = find_tier(tier)
    cluster = None
    registry = None
    if scheduler is not None:
        refuse_options(port, certificate, key)
        cluster = _join_cluster(scheduler)
        chosen = _agents_devices(cluster, device)
    else:
        registry = context.with_resource(browsers_lending(device, host, port, certificate, key))
        chosen = _own_devices(registry, device)
    options = capture_options(width, height, batch, guidance)
    with Store.open(db) as store:
        request = TuneRequest(
            capture=captured(model, options, stage),
            device=chosen[0],
            tier=limits,
            steps=steps,
            stages=stage,
            kernels=kernels,
            trials=32 if trials is None and minutes is None else trials,
            minutes=minutes,
            seed=seed,
            reason=reason,
            cache=cache,
            transfer=transfer,
            overlap=overlap,
        )
        alone = len(chosen) == 1 and cluster is None and registry is None
        if alone:
            with session_display(stderr()) as listener:
                summary = run_session(request, store, listener, open_worker)
    if not alone:
        from ..tuner.fleet.fleet import FleetRequest

        source = _device_source(cluster, chosen if words_of(device) not in ([], ["all"]) else None, registry, minutes)
        _tune_fleet(FleetRequest(model, options, request, db, scheduler or ""), chosen, source, json)
        return
    if json:
        from ..reports.tables import print_json

        print_json(summary.to_json(), stdout())
    if summary.interrupted:
        raise typer.Exit(130)


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
    import asyncio
    import os

    from ..support.errors import UsageError
    from ..support.signals import EXIT_STATUS

    try:
        from ..tuner.fleet.dask_agent import serve_agent
    except ImportError as error:
        if error.name not in ("distributed", "dask"):
            raise
        raise UsageError("Dask is not installed", "pip install 'wgtune[cluster]'") from None
    registry = context.with_resource(browsers_lending(device, host, port, certificate, key))
    others = [word for word in words_of(device) if word != BROWSER]
    devices = found_devices(others or ["all"]) if others or registry is None else []
    asyncio.run(serve_agent(scheduler, devices, note, registry=registry))
    context.close()  # so that pages that lend hear of it
    # A measurement may still be under way in one of Dask's threads, which Python would wait for at the end. Its process
    # ends with this one.
    os._exit(EXIT_STATUS)


def _join_cluster(scheduler: str) -> Cluster:
    from ..support.errors import UsageError

    try:
        from ..tuner.fleet.dask_client import Cluster
    except ImportError as error:
        if error.name not in ("distributed", "dask"):
            raise
        raise UsageError("Dask is not installed", "pip install 'wgtune[cluster]'") from None
    return Cluster(scheduler)


def _agents_devices(cluster: Cluster, specs: list[str] | None) -> list[Device]:
    """The devices of agents that ``specs`` name, all by default: each as often as there are agents with one."""
    from ..devices.discovery.discovery import select_several

    found = cluster.wait_for_devices(_AGENT_WAIT_S, lambda: note(f"waiting for an agent at {cluster.scheduler} …"))
    for problem in found.problems:
        warn(problem)
    if words_of(specs) in ([], ["all"]):
        return found.devices
    keys = {device.key for device in select_several(specs or [], found.devices)}
    return [device for device in found.devices if device.key in keys]


def _own_devices(registry: PageRegistry | None, specs: list[str] | None) -> list[Device]:
    """The devices of this machine that ``specs`` name; where they are browsers alone, the first one that joins."""
    if registry is None:
        return found_devices(specs)
    others = [word for word in words_of(specs) if word != BROWSER]
    if others:
        return found_devices(others)
    device = registry.wait_for_first(note).device
    note(f"{device.model} in {device.driver} joined as {device.key}")
    return [device]


def _device_source(
    cluster: Cluster | None, devices: Sequence[Device] | None, registry: PageRegistry | None, minutes: float | None
) -> DeviceSource | None:
    """Who may join later: agents' devices like ``devices``, or of any kind, or browsers."""
    if cluster is not None:
        from ..tuner.fleet.dask_client import AgentSource

        return AgentSource(cluster, None if devices is None else {device.key for device in devices})
    if registry is not None:
        from ..tuner.fleet.browser_source import BrowserSource

        return BrowserSource(registry, minutes)
    return None


def _tune_fleet(fleet: FleetRequest, devices: Sequence[Device], source: DeviceSource | None, json: bool) -> None:
    from ..reports.live.fleet import fleet_display, fleet_summary_lines
    from ..support.errors import DeviceError
    from ..tuner.fleet.fleet import tune_fleet

    with fleet_display(stderr()) as listener:
        summary = tune_fleet(fleet, devices, listener, source)
    for line in fleet_summary_lines(summary, listener.view):
        note(line)
    if json:
        from ..reports.tables import print_json

        print_json(summary.to_json(), stdout())
    if summary.interrupted:
        raise typer.Exit(130)
    if summary.failed:
        names = ", ".join(outcome.device for outcome in summary.failed)
        first = summary.failed[0]
        raise DeviceError(f"tuning did not end well on {names}: {first.error}", first.hint)
