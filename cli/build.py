"""`wgtune build`: a bundle from the best records of a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..build.format.sampler_tables import Sampler, find_sampler
from ..database.queries.layers import open_layers
from ..devices.limits import find_tier
from ..reports.listings.bundle import print_built
from ..reports.selection import select_device
from ..support.console import note, progress, stdout
from ..support.enums import Match
from .inputs import capture_options
from .options import (
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
    WidthOption,
)

if TYPE_CHECKING:
    pass


def build(
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's folder.")],
    device: KnownDeviceOption = None,
    tier: TierOption = "default",
    scheduler: Annotated[
        list[str] | None, typer.Option("--scheduler", help="Only this sampler; may be repeated; by default all.")
    ] = None,
    max_steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Largest number of inference steps that the bundle offers.")
    ] = 50,
    steps: StepsOption = 20,
    width: WidthOption = None,
    height: HeightOption = None,
    batch: BatchOption = 1,
    guidance: GuidanceOption = True,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Put the page into the bundle.")] = True,
    borrow: Annotated[
        Match,
        typer.Option(help="How similar another device must be to lend its schedule to a kernel without a record."),
    ] = Match.PORTABLE,
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
        request = BuildRequest(
            model=model,
            output=output,
            device=select_device(store, device) if device or store.devices() else None,
            options=capture_options(width, height, batch, guidance),
            tier=find_tier(tier),
            samplers=tuple(map(find_sampler, scheduler)) if scheduler else tuple(Sampler),
            max_steps=max_steps,
            steps=steps,
            page=page,
            borrow=borrow,
        )
        summary = build_bundle(request, store, report)
    print_built(summary, json=json, console=stdout())
