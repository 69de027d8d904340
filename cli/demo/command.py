"""`wgtune demo`: all steps once, on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...support.enums import ComputePrecision, WeightPrecision
from ...tuner.ir import CaptureOptions
from ...tuner.session.request import check_precision
from ..inputs import found_device
from ..options import ComputeOption, DeviceOption, WeightsOption
from .run import run_demo


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for all files.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=0.0, help="Minutes of tuning.")] = 4.0,
    device: DeviceOption = "auto",
    prompt: Annotated[str, typer.Option(help="What to draw.")] = "a lighthouse at dusk",
    weights: WeightsOption = WeightPrecision.F32,
    compute: ComputeOption = ComputePrecision.F32,
) -> None:
    """Make a small model, tune it, report, build a bundle and draw a picture. Run it again to continue."""
    found = found_device(device)
    check_precision(found, compute)
    if not run_demo(folder, minutes, found, prompt, CaptureOptions(weights=weights, compute=compute)):
        raise typer.Exit(130)
