"""The command line: parses words, calls one function of the packages below, prints what comes back.

Exit status: 0 done, 1 something failed, 2 wrong words, 3 no usable device, 4 database, 5 model, 6 bundle,
130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..support.console import note, show_error, stdout, warn
from ..support.errors import WgtuneError
from .build import build, generate
from .database import db_app
from .inputs import capture_options, captured, found_device
from .options import (
    TYPER,
    BatchOption,
    DbOption,
    DeviceOption,
    GuidanceOption,
    HeightOption,
    HtmlOption,
    JsonOption,
    KnownDeviceOption,
    KnownModelOption,
    LimitOption,
    ModelOption,
    ReleasesOption,
    ShippedOption,
    StageOption,
    StepsOption,
    WidthOption,
)
from .report_fidelity import report_fidelity
from .report_pytorch import report_pytorch
from .report_stability import report_stability
from .tune import agent, tune

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="wgtune",
    help="Tune every GPU kernel of a Stable Diffusion model, keep what is learned, build what a browser draws with.",
    pretty_exceptions_enable=False,
    **TYPER,
)
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
    from ..devices.discovery.discovery import discover, select
    from ..reports.listings.devices import print_devices

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
    from ..reports.listings.kernels import print_kernels
    from ..tuner.capture.kernel_table import kernel_rows

    capture = captured(model, capture_options(width, height, batch, guidance), stage)
    print_kernels(kernel_rows(capture, steps, sort), limit=limit, json=json, console=stdout())


app.command(epilog="Example: `wgtune tune --model sd-v1-5 --stage unet --minutes 30`")(tune)
app.command(epilog="Example: `wgtune agent --scheduler tcp://tuner.example:8786`")(agent)


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
    from ..reports.coverage import coverage

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
    from ..reports.latency import latency

    _report(latency, model, device, steps, limit, html, db, releases, shipped, json)


report_app.command("stability", epilog="Example: `wgtune report stability --top 10`")(report_stability)
report_app.command(
    "fidelity", epilog="Example: `wgtune report fidelity --device vulkan:nvidia-h200 --against browser --measure`"
)(report_fidelity)
report_app.command("pytorch", epilog="Example: `wgtune report pytorch --model sd-v1-5 --torch-device cuda`")(
    report_pytorch
)


app.command(epilog="Example: `wgtune build --model ./my-model --device vulkan:nvidia-h200 -o dist/`")(build)
app.command(
    epilog='Example: `wgtune generate --bundle dist/ --prompt "a lighthouse at dusk" --seed 7 --steps 20 -o out.png`, '
    "or `wgtune generate --bundle dist/ --prompts prompts.txt --device all -o pictures/`"
)(generate)


@app.command(epilog="Example: `wgtune web dist/`")
def web(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port; by default 8000, or a free one.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
) -> None:
    """Serve a bundle on this machine only, for your browser. Ctrl-C ends it."""
    from ..web.server import serve

    serve(bundle, port, open_browser)


@app.command(epilog="Example: `wgtune demo --minutes 2`")
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything lands.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=0.0, help="Minutes of tuning.")] = 4.0,
    device: DeviceOption = "auto",
    prompt: Annotated[str, typer.Option(help="What to draw.")] = "a lighthouse at dusk",
) -> None:
    """Make a small model, tune it, report, build, draw: the whole way once. The same command goes on."""
    from .demo.run import run_demo

    if not run_demo(folder, minutes, found_device(device), prompt):
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
    from ..database.queries.health import device_health
    from ..database.store import Store
    from ..reports.listings.health import print_health

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
    from ..database.queries.layers import open_layers
    from ..reports.html.page import write_page
    from ..reports.selection import select_device, select_model
    from ..reports.tables import print_report

    with open_layers(db, releases=releases or (), shipped=shipped, warn=note) as store:
        chosen = select_model(store, model)
        key = select_device(store, device, capture_key=chosen.capture_key).key
        made = make(store, chosen.capture_key, key, steps)
        if html is not None:
            write_page(html, store, chosen.capture_key, key, steps)
            note(f"wrote {html}")
    print_report(made, json=json, console=stdout(), limit=limit)
