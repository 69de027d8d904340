"""Results of `wgtune build` and `wgtune generate`, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ...support.formatting import duration, percent, size
from ...support.serialization import plain
from ..tables import print_json

if TYPE_CHECKING:
    from ...build.bundle.builder import BuildSummary
    from ...build.bundle.planned_program import ProgramSummary
    from ...build.format.documents import ProgramTimes, StageTime
    from ...build.runtime.painter import GeneratedImage


_NEAR = {"portable": "another GPU", "exact": "its own schedules, which now become other programs"}
"""How messages call the nearness of a device that lends; others by their own names."""


_PARTS = {"clip": "the text encoder", "unet": "a step", "vae": "the decoder"}
"""How messages call one run of each network."""


def print_built(
    summary: BuildSummary, times: Mapping[str, ProgramTimes] | None = None, *, json: bool, console: Console
) -> None:
    """Print what `wgtune build` made: folder and size, and of each program records used, needs and times.

    ``times`` are what `--measure` found, by the programs' plans.
    """
    times = times or {}
    if json:
        programs = [_program_json(one, times.get(one.plan)) for one in summary.programs]
        print_json({**plain(summary), "programs": programs}, console)
        return
    memory = [summary.weight_bytes + one.scratch_bytes for one in summary.programs]
    lines = [
        f"bundle     {summary.folder}, built in {duration(summary.seconds)}",
        f"size       {size(summary.nbytes)} ({size(summary.weight_bytes)} of weights, {summary.weights.value}); "
        f"{' or '.join(dict.fromkeys(map(size, memory)))} of GPU memory",
        f"samplers   {', '.join(summary.samplers)}",
    ]
    for one in summary.programs:
        if len(summary.programs) > 1:
            lines.append(f"program    {one.plan}: {one.compute.value} between kernels")
        lines += _program_lines(one, times.get(one.plan))
    _print_lines([*lines, *(f"note       {warning}" for warning in summary.warnings)], console)


def _program_lines(one: ProgramSummary, times: ProgramTimes | None) -> list[str]:
    lines = [
        f"kernels    {one.kernels} in {one.dispatches} dispatches: {one.improved} improved, "
        f"{one.from_records - one.improved} where the baseline won, "
        f"{sum(lender.kernels for lender in one.borrowed)} borrowed, {one.from_baseline} never measured",
        f"needs      {', '.join(one.features) or 'no features'}; "
        + ", ".join(f"{name} {value}" for name, value in one.limits.items()),
    ]
    if one.sliced:
        kernels = "1 kernel runs" if one.sliced == 1 else f"{one.sliced} kernels run"
        lines.append(
            f"longest    {duration(one.longest_dispatch_s)} for one dispatch on a slow GPU; {kernels} in slices, "
            "as Windows resets a GPU that is busy for 2 s"
        )
    if one.measured_s:
        lines.append(f"image      {duration(one.measured_s)}, the sum of the kernels' records")
    for stage in times.stages if times else ():
        lines.append(f"measured   {stage_sentence(stage, one.stage_records_s.get(stage.stage))}")
    for lender in one.borrowed:
        share = "" if lender.time_share is None else f", about {percent(lender.time_share)} of an image's time"
        near = _NEAR.get(lender.match, f"the same {lender.match}")
        kernels = "1 kernel" if lender.kernels == 1 else f"{lender.kernels} kernels"
        lines.append(f"borrowed   {kernels} from {lender.device} ({near}), not verified here{share}")
    if one.from_baseline:
        share = (
            "an unknown share of an image's time"
            if one.baseline_time_share is None
            else f"about {percent(one.baseline_time_share)} of an image's time"
        )
        lines.append(f"note       {one.from_baseline} kernels run their untuned baseline: {share}; `wgtune tune`")
    return lines


def _program_json(one: ProgramSummary, times: ProgramTimes | None) -> dict[str, Any]:
    stages = times.stages if times else ()
    told = [
        {**plain(stage), "ratio": stage.ratio, "records_s": one.stage_records_s.get(stage.stage)} for stage in stages
    ]
    return {**plain(one), "stages": told}


def stage_sentence(one: StageTime, records_s: float | None) -> str:
    """Return how long a stage takes, beside its dispatches one by one, its records, and where the rest goes."""
    by_records = "" if records_s is None else f"; {duration(records_s)} by the records"
    parts = [f"{one.dispatches} launches by themselves {duration(one.launch_s)}"]
    if one.gpu_s is not None:
        parts.append(f"all in one pass {duration(one.gpu_s)} by the GPU's clock")
    return (
        f"{_PARTS.get(one.stage, one.stage)} takes {duration(one.run_s)}, its dispatches one by one "
        f"{duration(one.alone_s)} ({one.ratio:.2f} of it){by_records} ({', '.join(parts)})"
    )


def print_generated(made: GeneratedImage, *, json: bool, console: Console) -> None:
    """Print what `wgtune generate` drew, and how long each part took."""
    if json:
        print_json(made, console)
        return
    timing = made.timing
    # The first call on a device includes what its driver compiles late.
    later = timing.step_s[1:] or timing.step_s
    _print_lines(
        [
            f"picture    {made.path}, {made.width} × {made.height}",
            f"drawn by   {made.device}, {made.scheduler}, {made.steps} steps, "
            f"guidance {made.guidance:g}, seed {made.seed}; {made.compute.value} between kernels",
            f"time       {duration(timing.total_s)}: text {duration(timing.text_s)}, "
            f"{duration(sum(later) / len(later))} a step, decoding {duration(timing.decode_s)}; "
            f"loading took {duration(made.load_s)}",
            *(f"note       {warning}" for warning in made.warnings),
        ],
        console,
    )


def _print_lines(lines: list[str], console: Console) -> None:
    console.print(Text("\n".join(lines)), soft_wrap=True)
