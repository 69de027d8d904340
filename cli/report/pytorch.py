"""`wgtune report pytorch`: the records of a device beside times of PyTorch."""

from __future__ import annotations

from enum import Enum
from importlib.metadata import version
from typing import Annotated

import typer

from ...database.queries.layers import open_layers
from ...reports.launch_counts import model_launches
from ...reports.pytorch import beside_pytorch
from ...reports.selection import select_device, select_model
from ...reports.tables import print_report
from ...support.console import note, progress, stdout
from ...support.errors import CaptureError, UsageError
from ..options import (
    DbOption,
    JsonOption,
    KnownDeviceOption,
    KnownModelOption,
    ReleasesOption,
    ShippedOption,
    StageOption,
    StepsOption,
)

# What measures needs TVM or PyTorch, which take seconds to import: these functions import it themselves.


class ModeName(str, Enum):
    """How PyTorch runs a stage."""

    EAGER = "eager"
    COMPILE = "compile"


def report_pytorch(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="The model's folder, Hugging Face id or built-in name; by default the model's name in the database."
        ),
    ] = None,
    torch_device: Annotated[
        str | None, typer.Option(help="PyTorch device: cuda, mps or cpu; by default the fastest available.")
    ] = None,
    mode: Annotated[
        list[ModeName] | None, typer.Option(help="eager or compile; may be repeated; by default both.")
    ] = None,
    stage: StageOption = None,
    steps: StepsOption = 20,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Time the model's stages in PyTorch (eager, torch.compile, TF32 off and on), beside the records of a device."""
    with open_layers(db, releases=releases or (), shipped=shipped, warn=note) as store:
        chosen = select_model(store, model)
        key = select_device(store, device, capture_key=chosen.capture_key).key
        options = model_launches(store, chosen.capture_key, steps).options
        with progress("Timing PyTorch") as report:
            report("loading", 0.0)
            from ...tuner.capture.sources import resolve_model
            from ...tuner.remeasure.pytorch_baseline import available_modes, default_device, device_name, time_stages

            where = torch_device or default_device()
            name = device_name(where)
            compiled = [one is ModeName.COMPILE for one in mode or list(ModeName)]
            modes = available_modes(where, sorted(set(compiled)))
            try:
                resolved = resolve_model(source or chosen.name)
            except CaptureError as error:
                hint = error.hint if source else "say where the model is: --source FOLDER"
                raise UsageError(error.message, hint) from error
            times, interrupted = [], False
            try:
                for one in time_stages(resolved, options, where, modes, report, stage):
                    times.append(one)
            except KeyboardInterrupt:
                interrupted = True
        made = beside_pytorch(store, chosen.capture_key, key, steps, times, name, version("torch"))
    print_report(made, json=json, console=stdout())
    if interrupted:
        raise typer.Exit(130)
