"""Results of `wgtune build` and `wgtune generate`, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ...support.formatting import duration, percent, size
from ...support.serialization import plain
from ..tables import print_json

if TYPE_CHECKING:
    from ...build.bundle.builder import BuildSummary
    from ...build.format.documents import StageTime
    from ...build.runtime.painter import GeneratedImage


_NEAR = {"portable": "another GPU", "exact": "its own schedules, which now become other programs"}
"""How messages call the nearness of a device that lends; others by their own names."""


_PARTS = {"clip": "the text encoder", "unet": "a step", "vae": "the decoder"}
"""How messages call one run of each network."""


def print_built(summary: BuildSummary, stages: Sequence[StageTime] = (), *, json: bool, console: Console) -> None:
    """Print what `wgtune build` made: folder, size, records used, limits that a browser must offer, and times.

    ``stages`` are what `--measure` found.
    """
    if json:
        print_json({**plain(summary), "stages": [_stage_json(summary, one) for one in stages]}, console)
        return
    lines = [
        f"bundle     {summary.folder}, built in {duration(summary.seconds)}",
        f"size       {size(summary.nbytes)} ({size(summary.weight_bytes)} of weights, {summary.weights.value}); "
        f"{size(summary.weight_bytes + summary.scratch_bytes)} of GPU memory",
        f"kernels    {summary.kernels} in {summary.dispatches} dispatches: {summary.searched} tuned, "
        f"{summary.from_records - summary.searched} where the baseline won, "
        f"{sum(lender.kernels for lender in summary.borrowed)} borrowed, {summary.from_baseline} never measured",
        f"samplers   {', '.join(summary.samplers)}",
        f"needs      {', '.join(summary.features) or 'no features'}; "
        + ", ".join(f"{name} {value}" for name, value in summary.limits.items()),
    ]
    if summary.sliced:
        kernels = "1 kernel runs" if summary.sliced == 1 else f"{summary.sliced} kernels run"
        lines.append(
            f"longest    {duration(summary.longest_dispatch_s)} for one dispatch on a slow GPU; {kernels} in slices, "
            "as Windows resets a GPU that is busy for 2 s"
        )
    if summary.measured_s:
        lines.append(f"image      {duration(summary.measured_s)}, the sum of the kernels' records")
    lines += [f"measured   {stage_sentence(one, summary.stage_records_s.get(one.stage))}" for one in stages]
    for lender in summary.borrowed:
        share = "" if lender.time_share is None else f", about {percent(lender.time_share)} of an image's time"
        near = _NEAR.get(lender.match, f"the same {lender.match}")
        kernels = "1 kernel" if lender.kernels == 1 else f"{lender.kernels} kernels"
        lines.append(f"borrowed   {kernels} from {lender.device} ({near}), not verified here{share}")
    if summary.from_baseline:
        share = (
            "an unknown share of an image's time"
            if summary.baseline_time_share is None
            else f"about {percent(summary.baseline_time_share)} of an image's time"
        )
        lines.append(f"note       {summary.from_baseline} kernels run their untuned baseline: {share}; `wgtune tune`")
    _print_lines([*lines, *(f"note       {warning}" for warning in summary.warnings)], console)


def _stage_json(summary: BuildSummary, one: StageTime) -> dict[str, Any]:
    return {**plain(one), "ratio": one.ratio, "records_s": summary.stage_records_s.get(one.stage)}


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
            f"guidance {made.guidance:g}, seed {made.seed}",
            f"time       {duration(timing.total_s)}: text {duration(timing.text_s)}, "
            f"{duration(sum(later) / len(later))} a step, decoding {duration(timing.decode_s)}; "
            f"loading took {duration(made.load_s)}",
            *(f"note       {warning}" for warning in made.warnings),
        ],
        console,
    )


def _print_lines(lines: list[str], console: Console) -> None:
    console.print(Text("\n".join(lines)), soft_wrap=True)
