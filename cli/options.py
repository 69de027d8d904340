"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..support.enums import AttentionForm, ComputePrecision, WeightPrecision

TYPER: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": "markdown",
    "add_completion": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Settings of every group of commands."""

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A diffusers folder, a .safetensors file, a Hugging Face id, or sd-v1-5, sd-turbo, sdxl, taiyi.",
    ),
]
KnownModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="A model in the database; by default the one tuned last.")
]
DeviceOption = Annotated[str, typer.Option("--device", "-d", help="A key, part of a name, #index, or auto.")]
DevicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        "-d",
        help="A key, part of a name, #index, auto, all, or (to tune) browser; several by commas or by repeating it.",
    ),
]
KnownDeviceOption = Annotated[
    str | None, typer.Option("--device", "-d", help="A device in the database; by default the one tuned last.")
]
DbOption = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="A SQLite file or SQLAlchemy URL; by default your own database."),
]
ReleasesOption = Annotated[
    list[Path] | None,
    typer.Option("--releases", help="Also read these releases, files or folders, under your own records."),
]
ShippedOption = Annotated[
    bool, typer.Option("--shipped/--no-releases", help="Read the releases that come with wgtune.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler", metavar="URL", help="A Dask scheduler, as in tcp://host:8786, whose agents' devices to tune."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
WidthOption = Annotated[int | None, typer.Option(min=8, help="Image width in pixels; by default the model's own.")]
HeightOption = Annotated[int | None, typer.Option(min=8, help="Image height in pixels; by default the model's own.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Images per batch.")]
GuidanceOption = Annotated[
    bool, typer.Option("--guidance/--no-guidance", help="Run the UNet on the negative prompt, too.")
]
WeightsOption = Annotated[
    WeightPrecision,
    typer.Option("--weights", help="How weights travel and lie in GPU memory: floats, half floats, or 8 or 4 bits."),
]
AttentionOption = Annotated[
    AttentionForm,
    typer.Option("--attention", help="Attention as one kernel, or as scores, softmax and values one after another."),
]
ComputeOption = Annotated[
    ComputePrecision,
    typer.Option(
        "--compute",
        help="What kernels pass on to each other: floats, or half floats, for GPUs with shader-f16. Sums are floats.",
    ),
]
ProgramOption = Annotated[
    ComputePrecision | None,
    typer.Option(
        "--compute",
        help="Which of the bundle's programs: between kernels floats, or half floats; by default what the GPU offers.",
    ),
]
StepsOption = Annotated[
    int, typer.Option(min=1, help="UNet calls per image; they weigh the stages in an image's time.")
]
TierOption = Annotated[str, typer.Option(help="WebGPU limits to stay within: default or desktop.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Number of rows to print; by default all.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Also write the report as one self-contained HTML page.")
]
StageOption = Annotated[list[str] | None, typer.Option("--stage", help="Only this stage; may be repeated.")]
KernelsOption = Annotated[
    list[str] | None,
    typer.Option("--kernels", help="Only kernels of this name, id or pattern (`conv2d*`); may be repeated."),
]
