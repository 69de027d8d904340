"""`wgtune generate`: draw pictures from a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..build.format.reader import Bundle
from ..build.format.sampler_tables import Sampler
from ..build.runtime.batch import generate_batch
from ..build.runtime.contact_sheet import CONTACT_SHEET, write_contact_sheet
from ..build.runtime.driver_warnings import driver_warnings
from ..build.runtime.generate import generate as draw
from ..build.runtime.painter import GenerateOptions
from ..build.runtime.program_selection import select_program
from ..build.runtime.prompts import plan_images, read_prompts
from ..devices.device import Device
from ..reports.listings.batch import print_batch
from ..reports.listings.bundle import print_generated
from ..support.console import note, progress, stdout, warn
from ..support.enums import ComputePrecision
from ..support.errors import DeviceError, UsageError
from .inputs import found_devices
from .options import DevicesOption, JsonOption, ProgramOption


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
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise, as for torch's CPU generator.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Inference steps.")] = 20,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 means none.")] = 7.5,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(s.value for s in Sampler)}, or a class of diffusers; by default the model's. A name may "
            "end in -karras, -exponential or -beta."
        ),
    ] = None,
    compute: ProgramOption = None,
    device: DevicesOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --prompts: draw existing pictures again.")
    ] = False,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="With --prompts: also write contact-sheet.png, all in one picture.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Draw a picture, or one for each line of a file, natively with the shaders of a bundle.

    With --prompts each device draws the next line as soon as it is free, in a process of its own. Ctrl-C stops; the
    same command goes on. Exits with 1 if a line could not be drawn.
    """
    options = GenerateOptions(negative_prompt, steps, guidance, scheduler, compute)
    if (prompt is None) == (prompts is None):
        raise UsageError("there must be one of --prompt and --prompts", '--prompt "a lighthouse at dusk"')
    if prompts is not None:
        folder = output or Path("pictures")
        _draw_prompts(_Batch(bundle, prompts, folder, seed, options, device, overwrite, contact_sheet), json)
        return
    if overwrite or contact_sheet or (device and (len(device) > 1 or device[0] == "all")):
        raise UsageError("--overwrite, --contact-sheet and several devices go with --prompts", "leave them out")
    assert prompt is not None

    with progress("Drawing") as report:
        made = draw(
            bundle,
            prompt,
            output or Path("out.png"),
            options,
            seed=seed,
            device=device[0] if device else "auto",
            progress=report,
        )
    print_generated(made, json=json, console=stdout())


@dataclass(frozen=True)
class _Batch:
    """What `--prompts` draws: each line of the file ``prompts`` into ``folder``, line n with the seed ``seed`` + n."""

    bundle: Path
    prompts: Path
    folder: Path
    seed: int
    options: GenerateOptions
    device: list[str] | None
    overwrite: bool
    contact_sheet: bool


def _draw_prompts(batch: _Batch, json: bool) -> None:
    found, bad = read_prompts(batch.prompts)
    for line in bad:
        warn(f"{batch.prompts}, line {line.line}: {line.reason}; left out")
    drawings = plan_images(found, batch.seed, batch.folder)
    devices = found_devices(batch.device) if drawings else []
    for warning in _driver_warnings(Bundle.open(batch.bundle), devices, batch.options.compute):
        warn(warning)
    try:
        with progress("Drawing") as report:
            result = generate_batch(
                batch.bundle,
                drawings,
                devices,
                batch.options,
                overwrite=batch.overwrite,
                progress=report,
                on_fault=lambda name, what: warn(f"{what}; its picture goes to whoever is free"),
            )
    except KeyboardInterrupt:
        note("stopped; the pictures drawn so far are whole, and the same command goes on")
        raise
    sheet = None
    if batch.contact_sheet:
        pictures = [drawing.path for drawing in drawings if drawing.path.is_file()]
        sheet = result.folder / CONTACT_SHEET
        write_contact_sheet(pictures, sheet)
    print_batch(result, bad, sheet, json=json, console=stdout())
    if bad or result.failed:
        raise typer.Exit(1)


def _driver_warnings(bundle: Bundle, devices: Sequence[Device], compute: ComputePrecision | None) -> list[str]:
    """Return what the drivers' quirks may spoil; a device that cannot draw the bundle is a fault of the batch."""
    found: dict[str, None] = {}
    for device in devices:
        with suppress(DeviceError):
            found |= dict.fromkeys(driver_warnings(bundle, select_program(bundle, device, compute), device))
    return list(found)
