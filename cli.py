"""The command line: parses words, calls one function of the packages below, prints what comes back.

Exit status: 0 done, 1 something failed, 2 wrong words, 3 no usable device, 4 database, 5 model, 6 bundle,
130 interrupted.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_browser import CertificateOption, HostOption, KeyOption, PortOption, lending
from .cli_database import db_app
from .cli_fidelity import report_fidelity
from .cli_options import (
    TYPER,
    BatchOption,
    DbOption,
    DeviceOption,
    DevicesOption,
    GuidanceOption,
    HeightOption,
    HtmlOption,
    JsonOption,
    KnownDeviceOption,
    KnownModelOption,
    LimitOption,
    ModelOption,
    ReleasesOption,
    SchedulerOption,
    ShippedOption,
    StageOption,
    StepsOption,
    TierOption,
    WidthOption,
)
from .cli_stability import report_stability
from .console import note, progress, show_error, stderr, stdout, warn
from .errors import WgtuneError
from .states import CacheState, Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .build.drawing import DrawOptions
    from .devices.device import Device
    from .tuner.cluster import Cluster
    from .tuner.fleet import Fleet
    from .tuner.program import Capture, CaptureOptions

app = typer.Typer(
    name="wgtune",
    help="Tune every GPU kernel of a Stable Diffusion model, keep what is learned, build what a browser draws with.",
    pretty_exceptions_enable=False,
    **TYPER,
)
_AGENT_WAIT_S = 120.0
"""How long `tune --scheduler` waits for a first agent."""

report_app = typer.Typer(help="Coverage and latency, from the database alone.", **TYPER)
app.add_typer(report_app, name="report")
app.add_typer(db_app, name="db")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        stdout().print(f"wgtune {metadata.version('wgtune')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command(epilog="Example: `wgtune devices --health`")
def devices(
    health: Annotated[
        bool, typer.Option("--health", help="How the devices of the database fare: trials, faults, quarantine.")
    ] = False,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """List the GPUs that can be tuned here, software ones too. Exits with 3 where there is none."""
    from .devices.discovery import discover, select
    from .reports.devices import print_devices

    if health:
        _print_health(db, json)
        return
    found = discover()
    if not found.devices:
        select("auto", [], found.problems)  # raises, saying what to install
    for problem in found.problems:
        warn(problem)
    print_devices(found.devices, json=json, console=stdout())


@app.command(epilog="Example: `wgtune kernels --model sd-v1-5 --sort gflop --limit 20`")
def kernels(
    model: ModelOption,
    sort: Annotated[str, typer.Option(help="A column: share, calls, gflop, mib, intensity, name, stage.")] = "share",
    limit: LimitOption = None,
    stage: StageOption = None,
    steps: StepsOption = 20,
    width: WidthOption = None,
    height: HeightOption = None,
    batch: BatchOption = 1,
    guidance: GuidanceOption = True,
    json: JsonOption = False,
) -> None:
    """List each distinct kernel of a model: what it computes, how often, and its share of the model's work."""
    from .reports.kernels import print_kernels
    from .tuner.inventory import kernel_rows

    capture = _capture(model, _options(width, height, batch, guidance), stage)
    print_kernels(kernel_rows(capture, steps, sort), limit=limit, json=json, console=stdout())


@app.command(epilog="Example: `wgtune tune --model sd-v1-5 --stage unet --minutes 30`")
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
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Tune a model's kernels on a GPU, or side by side on several.

    Ctrl-C stops; the same command goes on where it stopped. With several devices each has a process and a session of
    its own, and the command exits with 3 where one of them could not go on. `--device browser` prints an address: the
    browser that opens it lends its GPU, and must stay open.
    """
    from .database.store import Store
    from .devices.limits import find_tier
    from .devices.opening import open_worker
    from .tuner.live import watching
    from .tuner.session import TuneRequest
    from .tuner.session import tune as run_session

    limits = find_tier(tier)
    cluster = None
    lent = context.with_resource(lending(device, host, port, certificate, key))
    if lent is not None:
        chosen = [lent.device]
    elif scheduler is not None:
        cluster = _join_cluster(scheduler)
        chosen = _agents_devices(cluster, device)
    else:
        chosen = _devices(device)
    options = _options(width, height, batch, guidance)
    with Store.open(db) as store:
        request = TuneRequest(
            capture=_capture(model, options, stage),
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
        )
        if len(chosen) == 1 and cluster is None:
            with watching(stderr()) as listener:
                summary = run_session(request, store, listener, lent.opener if lent is not None else open_worker)
    if len(chosen) > 1 or cluster is not None:
        from .tuner.fleet import Fleet

        _tune_fleet(Fleet(model, options, request, db, scheduler or ""), chosen, cluster, json)
        return
    if json:
        from .reports.tables import print_json

        print_json(summary.to_json(), stdout())
    if summary.interrupted:
        raise typer.Exit(130)


@app.command(epilog="Example: `wgtune agent --scheduler tcp://tuner.example:8786`")
def agent(
    scheduler: Annotated[
        str, typer.Option("--scheduler", metavar="URL", help="The Dask scheduler, as in tcp://host:8786.")
    ],
    device: DevicesOption = None,
) -> None:
    """Lend this machine's devices to `wgtune tune --scheduler`, through a Dask cluster. Ctrl-C ends it.

    By default all of its GPUs. The agent measures and verifies; search and database are the tuner's. Cut off from the
    scheduler, it joins again by itself. Whoever reaches the scheduler can run code here: use a network that you trust.
    """
    import asyncio
    import os

    from .errors import UsageError
    from .tuner.interrupts import EXIT_STATUS

    try:
        from .tuner.agent import serve_agent
    except ImportError as error:
        if error.name not in ("distributed", "dask"):
            raise
        raise UsageError("Dask is not installed", "pip install 'wgtune[cluster]'") from None
    asyncio.run(serve_agent(scheduler, _devices(device or ["all"]), note))
    # A measurement may still be under way in one of Dask's threads, which Python would wait for at the end. Its process
    # ends with this one.
    os._exit(EXIT_STATUS)


@report_app.command("coverage", epilog="Example: `wgtune report coverage --model sd-v1-5 --html coverage.html`")
def report_coverage(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    steps: StepsOption = 20,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Each kernel of a model on a device: tuned, baseline only or missing, and its share of an image's time."""
    from .reports.coverage import coverage

    _report(coverage, model, device, steps, limit, html, db, releases, shipped, json)


@report_app.command("latency", epilog="Example: `wgtune report latency --model sd-v1-5 --html latency.html`")
def report_latency(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    steps: StepsOption = 20,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Baseline against best record: per kernel, per stage and per image."""
    from .reports.latency import latency

    _report(latency, model, device, steps, limit, html, db, releases, shipped, json)


report_app.command("stability", epilog="Example: `wgtune report stability --top 10`")(report_stability)
report_app.command(
    "fidelity", epilog="Example: `wgtune report fidelity --device vulkan:nvidia-h200 --against browser --measure`"
)(report_fidelity)


@app.command(epilog="Example: `wgtune build --model ./my-model --device vulkan:nvidia-h200 -o dist/`")
def build(
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's folder.")],
    device: KnownDeviceOption = None,
    tier: TierOption = "default",
    scheduler: Annotated[
        list[str] | None, typer.Option("--scheduler", help="Only this sampler; may be repeated; by default all.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, max=1000, help="Most inference steps that the bundle offers.")] = 50,
    steps: StepsOption = 20,
    width: WidthOption = None,
    height: HeightOption = None,
    batch: BatchOption = 1,
    guidance: GuidanceOption = True,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Put the page into the bundle.")] = True,
    borrow: Annotated[
        Match, typer.Option(help="How far a kernel without a record may go for another device's schedule.")
    ] = Match.PORTABLE,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Build a bundle from the best verified records of a device.

    Where there is none the nearest device's schedule is borrowed, and counted as such; else the baseline runs.
    """
    from .build.builder import BuildRequest, build_bundle
    from .build.schedulers import Sampler, find_sampler
    from .database.layers import open_layers
    from .devices.limits import find_tier
    from .reports.bundle import print_built
    from .reports.selection import select_device

    request = BuildRequest(
        model=model,
        output=output,
        options=_options(width, height, batch, guidance),
        tier=find_tier(tier),
        samplers=tuple(map(find_sampler, scheduler)) if scheduler else tuple(Sampler),
        max_steps=max_steps,
        steps=steps,
        page=page,
        borrow=borrow,
    )
    # Without records of their own people build from baselines; a database that they name must be there.
    layers = open_layers(db, releases=releases or (), shipped=shipped, warn=note)
    with layers as store, progress("Building") as report:
        key = select_device(store, device).key if device or store.devices() else ""
        summary = build_bundle(replace(request, device_key=key), store, report)
    print_built(summary, json=json, console=stdout())


@app.command(
    epilog='Example: `wgtune generate --bundle dist/ --prompt "a lighthouse at dusk" --seed 7 --steps 20 -o out.png`, '
    "or `wgtune generate --bundle dist/ --prompts prompts.txt --device all -o pictures/`"
)
def generate(
    bundle: Annotated[Path, typer.Option(help="The bundle's folder.")],
    prompt: Annotated[str | None, typer.Option(help="What to draw.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A text file, one prompt a line: line n is drawn with seed + n into <n>.png; # begins a comment."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG file; with --prompts the folder.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What not to draw.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="As torch's CPU generator takes it.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Inference steps.")] = 20,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 means none.")] = 7.5,
    scheduler: Annotated[
        str | None, typer.Option(help="ddim, euler, pndm or dpmsolver; by default the model's.")
    ] = None,
    device: DevicesOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --prompts: draw pictures anew that are there already.")
    ] = False,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="With --prompts: also write contact-sheet.png, all in one picture.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Draw a picture, or one for each line of a file, from a bundle with the very shaders that the browser runs.

    With --prompts each device draws the next line as soon as it is free, in a process of its own. Ctrl-C stops; the
    same command goes on. Exits with 1 where a line could not be drawn.
    """
    from .build.drawing import DrawOptions
    from .errors import UsageError

    options = DrawOptions(negative_prompt, steps, guidance, scheduler)
    if (prompt is None) == (prompts is None):
        raise UsageError("there must be one of --prompt and --prompts", '--prompt "a lighthouse at dusk"')
    if prompts is not None:
        _draw_prompts(bundle, prompts, output, seed, options, device, overwrite, contact_sheet, json)
        return
    if overwrite or contact_sheet or (device and (len(device) > 1 or device[0] == "all")):
        raise UsageError("--overwrite, --contact-sheet and several devices go with --prompts", "leave them out")
    assert prompt is not None
    from .build.generate import generate as draw
    from .reports.bundle import print_generated

    with progress("Drawing") as report:
        made = draw(
            bundle,
            prompt,
            output or Path("out.png"),
            negative_prompt=negative_prompt,
            seed=seed,
            steps=steps,
            guidance=guidance,
            scheduler=scheduler,
            device=device[0] if device else "auto",
            progress=report,
        )
    print_generated(made, json=json, console=stdout())


@app.command(epilog="Example: `wgtune web dist/`")
def web(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; by default 8000, or a free one.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
) -> None:
    """Serve a bundle on this machine only, for your browser. Ctrl-C ends it."""
    from .web.server import serve

    serve(bundle, port, open_browser)


@app.command(epilog="Example: `wgtune demo --minutes 2`")
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything lands.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=0.0, help="Minutes of tuning.")] = 4.0,
    device: DeviceOption = "auto",
    prompt: Annotated[str, typer.Option(help="What to draw.")] = "a lighthouse at dusk",
) -> None:
    """Make a small model, tune it, report, build, draw: the whole way once. The same command goes on."""
    from .demo import run_demo

    if not run_demo(folder, minutes, _device(device), prompt):
        raise typer.Exit(130)


def main() -> None:
    """Run the command line; an error that a user can mend ends in two plain lines and its own exit status."""
    try:
        app()
    except WgtuneError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _print_health(db: str | None, json: bool) -> None:
    from .database.health import device_health
    from .database.store import Store
    from .reports.health import print_health

    with Store.open(db, create=False) as store:
        print_health(device_health(store), json=json, console=stdout())


def _report(
    make: Any,
    model: str | None,
    device: str | None,
    steps: int,
    limit: int | None,
    html: Path | None,
    db: str | None,
    releases: list[Path] | None,
    shipped: bool,
    json: bool,
) -> None:
    from .database.layers import open_layers
    from .reports.page import write_page
    from .reports.selection import select_device, select_model
    from .reports.tables import print_json

    with open_layers(db, releases=releases or (), shipped=shipped, warn=note) as store:
        chosen = select_model(store, model)
        key = select_device(store, device, capture_key=chosen.capture_key).key
        made = make(store, chosen.capture_key, key, steps)
        if html is not None:
            write_page(html, store, chosen.capture_key, key, steps)
            note(f"wrote {html}")
    if json:
        print_json(made.to_json(), stdout())
    else:
        made.render(stdout(), limit)


def _join_cluster(scheduler: str) -> Cluster:
    from .errors import UsageError

    try:
        from .tuner.cluster import Cluster
    except ImportError as error:
        if error.name not in ("distributed", "dask"):
            raise
        raise UsageError("Dask is not installed", "pip install 'wgtune[cluster]'") from None
    return Cluster(scheduler)


def _agents_devices(cluster: Cluster, specs: list[str] | None) -> list[Device]:
    """The devices of agents that ``specs`` name, all by default: each as often as there are agents with one."""
    from .devices.discovery import select_several

    found = cluster.wait_for_agents(_AGENT_WAIT_S, lambda: note(f"waiting for an agent at {cluster.scheduler} …"))
    for problem in found.problems:
        warn(problem)
    if not specs or specs == ["all"]:
        return found.devices
    keys = {device.key for device in select_several(specs, found.devices)}
    return [device for device in found.devices if device.key in keys]


def _tune_fleet(fleet: Fleet, devices: Sequence[Device], cluster: Cluster | None, json: bool) -> None:
    from .errors import DeviceError
    from .tuner.fleet import tune_fleet
    from .tuner.fleet_live import fleet_summary_lines, watching_fleet

    with watching_fleet(stderr()) as listener:
        keys = {device.key for device in devices}
        there = cluster.follow(lambda device: device.key in keys) if cluster is not None else None
        summary = tune_fleet(fleet, devices, listener, there)
    for line in fleet_summary_lines(summary, listener.view):
        note(line)
    if json:
        from .reports.tables import print_json

        print_json(summary.to_json(), stdout())
    if summary.interrupted:
        raise typer.Exit(130)
    if summary.failed:
        names = ", ".join(outcome.device for outcome in summary.failed)
        first = summary.failed[0]
        raise DeviceError(f"tuning did not end well on {names}: {first.error}", first.hint)


def _draw_prompts(
    bundle: Path,
    prompts: Path,
    output: Path | None,
    seed: int,
    options: DrawOptions,
    device: list[str] | None,
    overwrite: bool,
    contact_sheet: bool,
    json: bool,
) -> None:
    from .build.contact_sheet import CONTACT_SHEET, write_contact_sheet
    from .build.gallery import draw_gallery
    from .build.prompts import plan_drawings, read_prompts
    from .reports.gallery import print_gallery

    found, bad = read_prompts(prompts)
    for line in bad:
        warn(f"{prompts}, line {line.line}: {line.reason}; left out")
    drawings = plan_drawings(found, seed, output or Path("pictures"))
    try:
        with progress("Drawing") as report:
            gallery = draw_gallery(
                bundle,
                drawings,
                _devices(device) if drawings else [],
                options,
                overwrite=overwrite,
                progress=report,
                on_fault=lambda name, what: warn(f"{what}; its picture goes to whoever is free"),
            )
    except KeyboardInterrupt:
        note("stopped; the pictures drawn so far are whole, and the same command goes on")
        raise
    sheet = None
    if contact_sheet:
        pictures = [drawing.path for drawing in drawings if drawing.path.is_file()]
        sheet = gallery.folder / CONTACT_SHEET
        write_contact_sheet(pictures, sheet)
    print_gallery(gallery, bad, sheet, json=json, console=stdout())
    if bad or gallery.undrawn:
        raise typer.Exit(1)


def _capture(model: str, options: CaptureOptions, stages: list[str] | None) -> Capture:
    from .tuner.capture import capture_model
    from .tuner.model import resolve_model

    with progress("Capturing") as report:
        return capture_model(resolve_model(model), options, stages, progress=lambda what: report(what, 0.0))


def _device(spec: str) -> Device:
    from .devices.discovery import discover, select

    found = discover()
    device = select(spec, found.devices, found.problems)
    for problem in found.problems:
        warn(problem)
    return device


def _devices(specs: list[str] | None) -> list[Device]:
    from .devices.discovery import CPU, discover, select_several
    from .states import Runtime

    asked = ",".join(specs or []).split(",")
    found = discover(more=[CPU] if any(word.startswith(f"{CPU}:") for word in asked) else [])
    devices = select_several(specs or [], found.devices, found.problems)
    for problem in found.problems:
        warn(problem)
    for device in devices:
        if device.runtime in (Runtime.TVM_CUDA, Runtime.TVM_METAL):
            warn(
                f"{device.key}: nobody has tried wgtune with TVM's {device.backend} runtime; look at the first records"
            )
    return devices


def _options(width: int | None, height: int | None, batch: int, guidance: bool) -> CaptureOptions:
    from .tuner.program import CaptureOptions

    return CaptureOptions(width=width, height=height, batch=batch, guidance=guidance)
