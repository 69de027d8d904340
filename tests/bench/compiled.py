"""How good untuned programs are for real GPUs, by their own compilers: exact figures, no times.

SD 1.5 at 512², float32, compiled for AMD chips that are not here.
"""

from __future__ import annotations

from rich.console import Console

from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.devices.offline.chips import CHIPS
from wgtune.reports.compiled import HEAVIEST, CompiledReport, Problem, compiled_report
from wgtune.reports.tables import Column, print_rows
from wgtune.support.console import progress
from wgtune.support.errors import DeviceError
from wgtune.support.formatting import coefficient, percent
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.compiled.facts import compiled_facts
from wgtune.tuner.remeasure.judged_programs import baseline_programs

STEPS = 20

# A matrix product and a convolution of the UNet by their shapes: 4096×320×320 and 3×3, 320→320 at 64².
PRODUCT = (("2", "4096", "320"), ("320", "320"))
CONVOLUTION = (("2", "320", "64", "64"), ("320", "320", "3", "3"))


def run(console: Console) -> None:
    """Print the share of multiply-adds that bounds an image, the worst of the heaviest kernels, and spills."""
    with progress("Capturing") as report:
        capture = capture_model("sd-v1-5", progress=lambda what: report(what, 0.0))
    with progress("Making programs") as report:
        programs = baseline_programs(capture, TIERS["desktop"], STEPS, report)
    try:
        with Store.memory() as store, progress("Compiling") as report:
            facts = compiled_facts(store, programs, CHIPS, progress=report)
    except DeviceError as error:
        console.print(f"compiled: left out, since {error.message}")
        return
    made = compiled_report("sd-v1-5", STEPS, programs, CHIPS, facts)
    shapes = {
        kernel_id: tuple(tuple(str(extent) for extent in spec.shape) for spec in kernel.params[:2])
        for kernel_id, kernel in capture.kernels.items()
    }
    console.print(f"\nUntuned SD 1.5 by {made.compiler}: share of multiply-adds, products, convolutions and attention")
    print_rows([_row(made, index, shapes) for index in range(len(CHIPS))], _COLUMNS, json=False, console=console)


def _row(made: CompiledReport, index: int, shapes: dict[str, tuple[tuple[str, ...], ...]]) -> dict[str, object]:
    chip = CHIPS[index]
    (image,) = [bound for bound in made.bounds if bound.chip == chip.name and bound.stage == "image"]
    on_chip = [(row.program, row.chips[index]) for row in made.rows]
    heavy = [one.share for program, one in on_chip if program.multiplies and one.share is not None][:HEAVIEST]

    def best(wanted: tuple[tuple[str, ...], ...]) -> float | None:
        found = [one.share for program, one in on_chip if shapes[program.workload_id] == wanted]
        return min((share for share in found if share is not None), default=None)

    return {
        "chip": chip.name,
        "share": image.share,
        "low": image.low,
        "under": sum(Problem.LOW_SHARE in one.problems for _, one in on_chip),
        "worst": min(heavy, default=None),
        "product": best(PRODUCT),
        "convolution": best(CONVOLUTION),
        "spills": image.spilling,
    }


_COLUMNS = [
    Column("chip", "chip"),
    Column("share", "harmonic mean", "right", coefficient),
    Column("low", "FLOPs under 0.1", "right", percent),
    Column("under", f"under 0.45 of the {HEAVIEST} heaviest", "right"),
    Column("worst", "worst of them", "right", coefficient),
    Column("product", "4096×320×320", "right", coefficient),
    Column("convolution", "3×3 320→320 @ 64²", "right", coefficient),
    Column("spills", "kernels that spill", "right"),
]
