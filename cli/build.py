"""`wgtune build` and `wgtune generate`. Imports inside keep `--help` fast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..support.console import note, progress, stdout, warn
from ..support.enums import Match
from .inputs import capture_options, found_devices
from .options import (
    BatchOption,
    DbOption,
    DevicesOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    KnownDeviceOption,
    ModelOption,
    ReleasesOption,
    ShippedOption,
    StepsOption,
    TierOption,
    WidthOption,
)

if TYPE_CHECKING:
    from ..build.runtime.painter import GenerateOptions


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
    from ..build.bundle.builder import BuildRequest, build_bundle
    from ..build.format.sampler_tables import Sampler, find_sampler
    from ..database.queries.layers import open_layers
    from ..devices.limits import find_tier
    from ..reports.listings.bundle import print_built
    from ..reports.selection import select_device

    request = BuildRequest(
        model=model,
        output=output,
        options=capture_options(width, height, batch, guidance),
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
    from ..build.runtime.painter import GenerateOptions
    from ..support.errors import UsageError

    options = GenerateOptions(negative_prompt, steps, guidance, scheduler)
    if (prompt is None) == (prompts is None):
        raise UsageError("there must be one of --prompt and --prompts", '--prompt "a lighthouse at dusk"')
    if prompts is not None:
        _draw_prompts(bundle, prompts, output, seed, options, device, overwrite, contact_sheet, json)
        return
    if overwrite or contact_sheet or (device and (len(device) > 1 or device[0] == "all")):
        raise UsageError("--overwrite, --contact-sheet and several devices go with --prompts", "leave them out")
    assert prompt is not None
    from ..build.runtime.generate import generate as draw
    from ..reports.listings.bundle import print_generated

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


def _draw_prompts(
    bundle: Path,
    prompts: Path,
    output: Path | None,
    seed: int,
    options: GenerateOptions,
    device: list[str] | None,
    overwrite: bool,
    contact_sheet: bool,
    json: bool,
) -> None:
    from ..build.runtime.batch import generate_batch
    from ..build.runtime.contact_sheet import CONTACT_SHEET, write_contact_sheet
    from ..build.runtime.prompts import plan_images, read_prompts
    from ..reports.listings.gallery import print_batch

    found, bad = read_prompts(prompts)
    for line in bad:
        warn(f"{prompts}, line {line.line}: {line.reason}; left out")
    drawings = plan_images(found, seed, output or Path("pictures"))
    try:
        with progress("Drawing") as report:
            result = generate_batch(
                bundle,
                drawings,
                found_devices(device) if drawings else [],
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
        sheet = result.folder / CONTACT_SHEET
        write_contact_sheet(pictures, sheet)
    print_batch(result, bad, sheet, json=json, console=stdout())
    if bad or result.failed:
        raise typer.Exit(1)
