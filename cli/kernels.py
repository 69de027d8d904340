"""`wgtune kernels`: the kernel inventory of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from ..reports.listings.kernels import print_kernels
from ..support.console import stdout
from ..support.enums import ComputePrecision, WeightPrecision
from ..tuner.capture.kernel_table import kernel_rows
from ..tuner.ir import DEFAULT_ATTENTION
from .inputs import capture_options, captured
from .options import (
    AttentionOption,
    BatchOption,
    ComputeOption,
    GuidanceOption,
    HeightOption,
    JsonOption,
    LimitOption,
    ModelOption,
    StageOption,
    StepsOption,
    WeightsOption,
    WidthOption,
)


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
    weights: WeightsOption = WeightPrecision.F32,
    attention: AttentionOption = DEFAULT_ATTENTION,
    compute: ComputeOption = ComputePrecision.F32,
    json: JsonOption = False,
) -> None:
    """List each distinct kernel of a model: what it computes, how often, and its share of the model's work."""
    capture = captured(
        model, capture_options(width, height, batch, guidance, weights, attention, compute=compute), stage
    )
    print_kernels(kernel_rows(capture, steps, sort), limit=limit, json=json, console=stdout())
