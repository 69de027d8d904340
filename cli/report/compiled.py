"""`wgtune report compiled`: programs compiled for GPUs that are not here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...build.format.reader import Bundle, BundleProgram
from ...database.queries.layers import open_layers
from ...database.reader import Reader
from ...database.store import Store
from ...devices.limits import find_tier
from ...devices.offline.chips import CHIPS, CUDA_CHIPS, chip_list, select_chips
from ...devices.offline.compiler import takes_wgsl
from ...reports.compiled import compiled_report
from ...reports.html.compiled_page import write_compiled_page
from ...reports.launch_counts import model_launches
from ...reports.selection import select_device, select_model
from ...reports.tables import print_report
from ...support.console import note, progress, stdout
from ...support.enums import AttentionForm, ComputePrecision, WeightPrecision
from ...support.errors import UsageError, WgtuneError
from ...tuner.compiled.facts import compiled_facts, known_programs
from ...tuner.ir import DEFAULT_ATTENTION
from ..inputs import capture_options, captured, split_specs
from ..options import (
    AttentionOption,
    DbOption,
    HeightOption,
    HtmlOption,
    JsonOption,
    LimitOption,
    ReleasesOption,
    ShippedOption,
    StageOption,
    StepsOption,
    TierOption,
    WeightsOption,
    WidthOption,
)

if TYPE_CHECKING:
    from ...build.bundle.bundle_programs import KernelWork
    from ...devices.offline.chips import Chip
    from ...tuner.compiled.kernel_program import KernelProgram
    from ...tuner.ir import Capture


@dataclass(frozen=True)
class _Choice:
    """Whose programs: a bundle's, a device's records', or a model's baselines."""

    bundle: Path | None
    device: str | None
    model: str | None
    stages: list[str] | None
    steps: int
    tier: str
    width: int | None
    height: int | None
    weights: WeightPrecision
    attention: AttentionForm
    compute: ComputePrecision | None


def report_compiled(
    bundle: Annotated[Path | None, typer.Option("--bundle", help="A bundle: the shaders that it ships.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="A device in the database: the programs of its best records.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Alone, a model whose untuned programs to compile: a folder, a Hugging Face id or a built-in name. "
            "With --device, a model in the database; with --bundle, the one that it was built from.",
        ),
    ] = None,
    stage: StageOption = None,
    chip: Annotated[
        list[str] | None,
        typer.Option(
            "--chip",
            help=f"By commas or by repeating it. WGSL for AMD's, by default all: {chip_list(CHIPS)}. With --model also "
            f"TVM's CUDA for NVIDIA's: {chip_list(CUDA_CHIPS)}.",
        ),
    ] = None,
    steps: StepsOption = 20,
    tier: TierOption = "default",
    width: WidthOption = None,
    height: HeightOption = None,
    weights: WeightsOption = WeightPrecision.F32,
    attention: AttentionOption = DEFAULT_ATTENTION,
    compute: Annotated[
        ComputePrecision | None,
        typer.Option(
            help="With --model what kernels pass on to each other, by default f32; with --bundle which of its "
            "programs, by default the one that needs the least."
        ),
    ] = None,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Compile programs for GPUs that are not here: registers, spills, and how near their peak they could come."""
    chips = select_chips(split_specs(chip))
    choice = _Choice(bundle, device, model, stage, steps, tier, width, height, weights, attention, compute)
    if (bundle is None and device is None and model is None) or (bundle is not None and device is not None):
        raise UsageError(
            "no programs are named to compile", "name --model, --device or --bundle; --help tells them apart"
        )
    Store.open(db).close()  # facts are kept: the user's own database is made where there is none
    with open_layers(db, releases=releases or (), shipped=shipped, warn=note) as store:
        subject, programs = _programs(store, choice, chips)
        if stage is not None:
            programs = [one for one in programs if set(one.launches) & set(stage)]
        if not programs:
            raise UsageError(f"{subject} has no kernels" + (f" in stage {', '.join(stage)}" if stage else ""))
        with progress("Compiling") as report:
            facts = compiled_facts(store, programs, chips, progress=report)
    made = compiled_report(subject, steps, programs, chips, facts)
    if html is not None:
        write_compiled_page(html, made)
        note(f"wrote {html}")
    print_report(made, json=json, console=stdout(), limit=limit)


def _programs(store: Reader, choice: _Choice, chips: Sequence[Chip]) -> tuple[str, list[KernelProgram]]:
    """Return whose programs they are, in words, and the programs."""
    # TVM takes seconds to import; a bundle and known records need none of it.
    if not takes_wgsl(chips):
        return _cuda_programs(choice, chips)
    if choice.bundle is not None:
        from ...build.bundle.bundle_programs import bundle_programs

        opened = Bundle.open(choice.bundle)
        # The last one needs no feature: Chromium's software GPU, which translates WGSL, has no half floats.
        program = opened.programs_of(choice.compute)[-1]
        which = f" ({program.info.plan})" if len(opened.programs) > 1 else ""
        work = _work(store, opened, program, choice.model)
        return f"Shaders of {choice.bundle}{which}", bundle_programs(opened, program, choice.steps, work)
    if choice.device is not None:
        from ...tuner.remeasure.judged_programs import record_programs

        chosen = select_model(store, choice.model)
        key = select_device(store, choice.device, capture_key=chosen.capture_key).key
        kernels = model_launches(store, chosen.capture_key, choice.steps).kernels
        launches = {
            kernel.workload.id: kernel.stages
            for kernel in kernels
            if choice.stages is None or set(choice.stages) & set(kernel.stages)
        }
        with progress("Making programs") as report:
            programs = record_programs(
                store, key, launches, lambda digests: known_programs(store, digests, chips), report
            )
        return f"Best records of {key} for {chosen.name}", programs
    assert choice.model is not None
    if choice.compute is ComputePrecision.F16:
        raise UsageError(
            "Chromium's software GPU has no half floats (shader-f16), so it translates no WGSL of --compute f16",
            f"name chips of NVIDIA, which compile TVM's CUDA: --chip {CUDA_CHIPS[0].name}",
        )
    from ...tuner.remeasure.judged_programs import baseline_programs

    capture = _captured(choice, choice.model)
    with progress("Making programs") as report:
        programs = baseline_programs(capture, find_tier(choice.tier), choice.steps, report)
    return f"Untuned programs of {choice.model}", programs


def _captured(choice: _Choice, model: str) -> Capture:
    compute = choice.compute or ComputePrecision.F32
    options = capture_options(
        choice.width, choice.height, 1, True, choice.weights, choice.attention, choice.tier, compute
    )
    return captured(model, options, choice.stages)


def _cuda_programs(choice: _Choice, chips: Sequence[Chip]) -> tuple[str, list[KernelProgram]]:
    """Return a model's baselines in CUDA, scheduled for the first of NVIDIA's chips."""
    if choice.model is None or choice.bundle is not None or choice.device is not None:
        raise UsageError("NVIDIA's chips compile a model's untuned programs alone", "name the model with --model")
    from ...tuner.remeasure.cuda_programs import cuda_baselines

    capture = _captured(choice, choice.model)
    with progress("Making programs") as report:
        programs = cuda_baselines(capture, chips[0], choice.steps, report)
    return f"Untuned CUDA programs of {choice.model}", programs


def _work(store: Reader, bundle: Bundle, program: BundleProgram, model: str | None) -> dict[str, KernelWork]:
    """Return what is known of the program's kernels: from the database, else by capturing its model again."""
    from ...build.bundle.bundle_programs import KernelWork, bundle_options

    kernels = store.model_kernels(program.info.capture)
    found: dict[str, KernelWork] = {}
    if kernels:
        workloads = store.workloads({one.workload_id for one in kernels})
        for one in kernels:
            info = workloads[one.workload_id]
            launches = {**(found[info.name].launches if info.name in found else {}), one.stage: one.calls}
            found[info.name] = KernelWork(info.id, info.flops, launches)
        return found
    try:
        capture = captured(model or bundle.manifest.model.name, bundle_options(bundle, program), None)
    except WgtuneError as error:
        if model is not None:
            raise
        note(f"the kernels' FLOPs are not known, since the bundle's model is not here: {error.message}")
        return {}
    for name, one_stage in capture.stages.items():
        for kernel_id, calls in one_stage.calls_per_kernel().items():
            kernel = capture.kernels[kernel_id]
            launches = {**(found[kernel.name].launches if kernel.name in found else {}), name: calls}
            found[kernel.name] = KernelWork(kernel.id, kernel.flops, launches)
    return found
