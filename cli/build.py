"""`wgtune build`: a bundle from the best records of a device."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..build.format.reader import Bundle
from ..build.format.sampler_tables import USUAL_SAMPLERS, find_sampler
from ..database.queries.layers import open_layers
from ..database.schema.records import DeviceInfo
from ..devices.device import Device
from ..devices.discovery.discovery import discover, select
from ..devices.limits import find_tier
from ..reports.listings.bundle import print_built
from ..reports.selection import select_device
from ..support.console import note, progress, stdout
from ..support.enums import ComputePrecision, Match, Runtime, WeightPrecision
from ..support.errors import UsageError
from ..tuner.ir import DEFAULT_ATTENTION
from .inputs import capture_options
from .options import (
    AttentionOption,
    BatchOption,
    DbOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    KnownDeviceOption,
    ModelOption,
    ReleasesOption,
    ShippedOption,
    StepsOption,
    TierOption,
    WeightsOption,
    WidthOption,
)

if TYPE_CHECKING:
    from ..build.bundle.builder import BuildSummary
    from ..build.format.documents import ProgramTimes


class Arithmetic(str, Enum):
    """The programs of a bundle."""

    F32 = "f32"
    F16 = "f16"
    AUTO = "auto"

    @property
    def precisions(self) -> tuple[ComputePrecision, ...]:
        """Return the precisions of which there is a program each."""
        return tuple(ComputePrecision) if self is Arithmetic.AUTO else (ComputePrecision(self.value),)


def build(
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's folder.")],
    config: Annotated[
        str | None,
        typer.Option(help="For a model in one file: the diffusers folder or Hugging Face id of its configuration."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FILE[:SCALE]", help="Merge this LoRA into the weights; may be repeated."),
    ] = None,
    textual_inversion: Annotated[
        list[Path] | None,
        typer.Option("--textual-inversion", help="Add the word in this file for prompts; may be repeated."),
    ] = None,
    device: KnownDeviceOption = None,
    tier: TierOption = "default",
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            help=f"Only this sampler; may be repeated; by default {', '.join(s.value for s in USUAL_SAMPLERS)}. "
            "A name may end in -karras, -exponential or -beta.",
        ),
    ] = None,
    max_steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Largest number of inference steps that the bundle offers.")
    ] = 50,
    steps: StepsOption = 20,
    width: WidthOption = None,
    height: HeightOption = None,
    batch: BatchOption = 1,
    guidance: GuidanceOption = True,
    weights: WeightsOption = WeightPrecision.F32,
    compute: Annotated[
        Arithmetic,
        typer.Option(
            help="What kernels pass on to each other: floats, half floats (for GPUs with shader-f16), or auto: a "
            "program for each over the same weights, of which a visitor runs what the GPU offers."
        ),
    ] = Arithmetic.F32,
    attention: AttentionOption = DEFAULT_ATTENTION,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Put the page into the bundle.")] = True,
    borrow: Annotated[
        Match,
        typer.Option(help="How similar another device must be to lend its schedule to a kernel without a record."),
    ] = Match.PORTABLE,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Afterwards run each stage on the device, compare it with the sum of its kernels, and keep the times.",
        ),
    ] = False,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Build a bundle from the best verified records of a device.

    A kernel without one borrows the schedule of the most similar device, or else runs its baseline.
    """
    # TVM and PyTorch come with it, which would make `--help` take seconds.
    from ..build.bundle.builder import BuildRequest, build_bundle

    # Without records of their own people build from baselines; a database that they name must be there.
    layers = open_layers(db, releases=releases or (), shipped=shipped, warn=note)
    with layers as store, progress("Building") as report:
        known = select_device(store, device) if device or store.devices() else None
        here = _device_here(known) if measure else None  # before a build of minutes
        request = BuildRequest(
            model=model,
            output=output,
            config=config,
            loras=tuple(lora or ()),
            textual_inversions=tuple(map(str, textual_inversion or ())),
            device=known,
            options=capture_options(width, height, batch, guidance, weights, attention, tier),
            compute=compute.precisions,
            tier=find_tier(tier),
            samplers=tuple(map(find_sampler, scheduler)) if scheduler else USUAL_SAMPLERS,
            max_steps=max_steps,
            steps=steps,
            page=page,
            borrow=borrow,
        )
        summary = build_bundle(request, store, report)
    times: dict[str, ProgramTimes] = {}
    if here is not None:
        from ..build.bundle.documents import store_measured

        with progress("Measuring") as report:
            times = _measured(summary, here, report)
        store_measured(output, here, times)
    print_built(summary, times, json=json, console=stdout())


def _measured(summary: BuildSummary, device: Device, report: Callable[[str, float], None]) -> dict[str, ProgramTimes]:
    """Return the times of the bundle's programs that the device can run, by their plans."""
    from ..build.format.documents import ProgramTimes
    from ..build.runtime.program_selection import runnable_programs, select_program
    from ..build.runtime.stage_times import measure_stages

    bundle = Bundle.open(summary.folder)
    select_program(bundle, device)  # raises where there is none
    records_s = {one.plan: dict(one.stage_records_s) for one in summary.programs}
    times = {}
    for program in runnable_programs(bundle.programs, device):
        stages = measure_stages(bundle, device, progress=report, program=program)
        times[program.info.plan] = ProgramTimes(tuple(stages), records_s[program.info.plan])
    return times


def _device_here(known: DeviceInfo | None) -> Device:
    """Return the device of this machine whose records are used; without records the first one.

    Raises UsageError where it is not here, or runs no WGSL in this process.
    """
    found = discover()
    if known is None:
        return select("auto", found.devices, found.problems)
    for device in found.devices:
        if device.key == known.key and device.runtime is Runtime.WGPU:
            return device
    keys = ", ".join(device.key for device in found.devices if device.runtime is Runtime.WGPU) or "none"
    raise UsageError(
        f"{known.key}, whose records the bundle is built from, cannot be measured: wgpu finds {keys} on this machine",
        "leave out --measure, or name another device with --device",
    )
