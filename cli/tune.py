"""`wgtune tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..database.store import Store
from ..devices.browser.page_registry import PageRegistry
from ..devices.device import Device
from ..devices.limits import find_tier
from ..devices.worker.factory import open_worker
from ..reports.live.fleet import fleet_display, fleet_summary_lines
from ..reports.live.session import session_display
from ..reports.tables import print_json
from ..support.console import note, stderr, stdout
from ..support.enums import CacheState, ComputePrecision, WeightPrecision
from ..support.errors import DeviceError
from ..tuner.fleet.browser_source import BrowserSource
from ..tuner.fleet.device_source import DeviceSource
from ..tuner.fleet.fleet import FleetRequest, tune_fleet
from ..tuner.fleet.listener import FleetSummary
from ..tuner.ir import DEFAULT_ATTENTION
from ..tuner.session.events import TuneSummary
from ..tuner.session.request import TuneRequest, check_precision
from .browser import BROWSER, CertificateOption, HostOption, KeyOption, PageOptions, PortOption, serve_browsers
from .cluster import cluster_devices
from .inputs import capture_options, captured, found_devices, split_specs
from .options import (
    AttentionOption,
    BatchOption,
    ComputeOption,
    DbOption,
    DevicesOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    KernelsOption,
    ModelOption,
    SchedulerOption,
    StageOption,
    StepsOption,
    TierOption,
    WeightsOption,
    WidthOption,
)


def tune(
    context: typer.Context,
    model: ModelOption,
    device: DevicesOption = None,
    stage: StageOption = None,
    kernels: KernelsOption = None,
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
    weights: WeightsOption = WeightPrecision.F32,
    attention: AttentionOption = DEFAULT_ATTENTION,
    compute: ComputeOption = ComputePrecision.F32,
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
    warm: Annotated[
        bool,
        typer.Option(
            "--warm/--cold",
            help="Start from what trials of other devices teach, their best schedules and the cost model, or without.",
        ),
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
    limits = find_tier(tier)
    page = PageOptions(host, port, certificate, key)
    registry: PageRegistry | None = None
    source: DeviceSource | None = None
    if scheduler is not None:
        page.refuse()
        devices, source = cluster_devices(scheduler, device)
    else:
        registry = context.with_resource(serve_browsers(device, page))
        devices = _own_devices(registry, device)
    for one in devices:
        check_precision(one, compute)
    options = capture_options(width, height, batch, guidance, weights, attention, tier, compute)
    with Store.open(db) as store:  # a database that cannot be opened is reported before the model is captured
        request = TuneRequest(
            capture=captured(model, options, stage),
            device=devices[0],
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
            warm=warm,
            overlap=overlap,
        )
        if len(devices) == 1 and scheduler is None and registry is None:
            from ..tuner.session.session import tune as run_session  # loads TVM, which `--help` does without

            with session_display(stderr()) as listener:
                session_summary = run_session(request, store, listener, open_worker)
            _print_summary(session_summary, json)
            return
    if registry is not None:
        source = BrowserSource(registry, minutes)
    with fleet_display(stderr()) as display:
        fleet = FleetRequest(model, options, request, db, scheduler or "")
        summary = tune_fleet(fleet, devices, display, source)
    for line in fleet_summary_lines(summary, display.view):
        note(line)
    _print_summary(summary, json)
    if summary.failed:
        names = ", ".join(outcome.device for outcome in summary.failed)
        first = summary.failed[0]
        raise DeviceError(f"tuning did not end well on {names}: {first.error}", first.hint)


def _own_devices(registry: PageRegistry | None, specs: list[str] | None) -> list[Device]:
    """Return the devices of this machine that ``specs`` name; wait for a browser where they name browsers only."""
    if registry is None:
        return found_devices(specs)
    others = [word for word in split_specs(specs) if word != BROWSER]
    if others:
        return found_devices(others)
    device = registry.wait_for_first(note).device
    note(f"{device.model} in {device.driver} joined as {device.key}")
    return [device]


def _print_summary(summary: TuneSummary | FleetSummary, json: bool) -> None:
    """Print the summary as JSON where asked for; raise typer.Exit where the user stopped the tuning."""
    if json:
        print_json(summary.to_json(), stdout())
    if summary.interrupted:
        raise typer.Exit(130)
