"""One program of a bundle: a capture's kernels, each with its program, as a plan over the bundle's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from ...database.reader import Reader
from ...database.schema.records import DeviceInfo
from ...devices.limits import Tier
from ...devices.program import Program
from ...support.enums import ComputePrecision, Match
from ...support.formatting import duration
from ...tuner.ir import Capture
from ..format.manifest import BorrowedInfo, DispatchesInfo, ProgramInfo, Requirements, TunedInfo
from ..format.plan import PLAN
from ..memory.in_place import add_in_place
from .assembly import Assembled, PipelineTensors, ShaderFiles, assemble
from .device_limits import check_plan, required_limits
from .dispatch_times import LONGEST_S, limit_dispatches
from .program_choice import (
    ProgramChoice,
    borrowed_kernels,
    choose_programs,
    count_improved,
    measured_seconds,
    stage_seconds,
    untuned_share,
)
from .shared_shaders import share_shaders
from .weights import ShardLayout


@dataclass(frozen=True)
class Selection:
    """Where kernels' programs come from.

    ``store`` has the records of ``device``; both may be None, for baselines only. ``tier`` has the limits that every
    program keeps. ``borrow`` is the farthest device whose schedules are used. ``steps`` weigh times of stages.
    """

    tier: Tier
    store: Reader | None
    device: DeviceInfo | None
    borrow: Match
    steps: int


@dataclass(frozen=True)
class ChosenKernels:
    """A capture, the program of each of its kernels by kernel id, and how long dispatches take at most."""

    capture: Capture
    choices: dict[str, ProgramChoice]
    dispatches: DispatchesInfo


@dataclass(frozen=True)
class PlannedProgram:
    """A program of the bundle as it is written.

    ``programs`` are those of the kernels, by kernel id, with shared shaders.
    """

    kernels: ChosenKernels
    programs: Mapping[str, Program]
    assembled: Assembled
    info: ProgramInfo


@dataclass(frozen=True)
class ProgramSummary:
    """What is known of one of a bundle's programs when it is built.

    - ``from_records`` kernels run a schedule verified on the device, of which ``improved`` were found by search; for
      the others the baseline won
    - ``borrowed``: kernels that run schedules verified on another device only
    - ``from_baseline`` kernels run their untuned baseline, unmeasured, and take ``baseline_time_share`` of an image's
      time (estimated; None where nothing was measured)
    - ``measured_s``: sum of the records' times for one batch of images, in seconds
    - ``stage_records_s``: the same for one run of each stage, without the stages of which a kernel has no record
    - ``scratch_bytes``: memory of intermediates
    - ``longest_dispatch_s``: estimated time of the longest dispatch on a slow GPU, in seconds; ``sliced`` kernels run
      in slices of their grids, because they would take longer
    """

    plan: str
    compute: ComputePrecision
    kernels: int
    from_records: int
    improved: int
    from_baseline: int
    baseline_time_share: float | None
    borrowed: tuple[BorrowedInfo, ...]
    measured_s: float
    stage_records_s: Mapping[str, float]
    dispatches: int
    scratch_bytes: int
    longest_dispatch_s: float
    sliced: int
    limits: Mapping[str, int]
    features: tuple[str, ...]


def plan_file(compute: ComputePrecision) -> str:
    """Return the file of a plan whose kernels pass on such floats."""
    return PLAN if compute is ComputePrecision.F32 else f"plan-{compute.value}.json"


def choose_kernels(
    capture: Capture, selection: Selection, progress: Callable[[int, int], None], warn: Callable[[str], None]
) -> ChosenKernels:
    """Choose the program of every kernel, and divide those whose dispatches would take too long.

    Raises:
        BundleError: a kernel does not become WebGPU within the tier.
    """
    choices = choose_programs(
        capture,
        selection.tier,
        selection.store,
        selection.device,
        progress,
        warn,
        selection.borrow,
        selection.steps,
    )
    choices, dispatches = limit_dispatches(capture.kernels, choices, selection.device)
    if dispatches.longest_s > LONGEST_S:
        warn(
            f"a dispatch may take {duration(dispatches.longest_s)} on a slow GPU, where Windows resets it after 2 s: "
            "its grid has too few workgroups to be divided further"
        )
    return ChosenKernels(capture, choices, dispatches)


def plan_program(
    kernels: ChosenKernels,
    tensors: PipelineTensors,
    selection: Selection,
    layout: ShardLayout,
    states: int,
    files: ShaderFiles,
) -> PlannedProgram:
    """Assemble the plan of a program; arguments as for `assemble`.

    Raises:
        BundleError: the plan does not fit the tier.
    """
    capture, programs = add_in_place(
        kernels.capture, {kernel: choice.program for kernel, choice in kernels.choices.items()}
    )
    programs = share_shaders(programs)
    assembled = assemble(capture, tensors, programs, layout, states, files)
    limits = required_limits(assembled.plan, programs.values())
    check_plan(limits, selection.tier)
    features = {feature for program in programs.values() for feature in program.needs.features}
    compute = capture.options.compute
    info = ProgramInfo(
        plan_file(compute),
        compute,
        capture.key,
        Requirements(limits, tuple(sorted(features))),
        _tuned_info(kernels, selection),
        kernels.dispatches,
    )
    return PlannedProgram(kernels, programs, assembled, info)


def _tuned_info(kernels: ChosenKernels, selection: Selection) -> TunedInfo:
    """Count the kernels by where their schedules come from."""
    device, choices = selection.device, kernels.choices
    borrowed = borrowed_kernels(kernels.capture, choices, selection.steps)
    from_records = sum(1 for choice in choices.values() if choice.record is not None)
    return TunedInfo(
        device=device.key if device is not None else "",
        software=device is not None and device.software,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        kernels=len(choices),
        from_records=from_records,
        improved=count_improved(choices),
        from_baseline=len(choices) - from_records - sum(group.kernels for group in borrowed),
        baseline_time_share=untuned_share(kernels.capture, choices, selection.steps),
        borrowed=borrowed,
    )


def summarise(planned: PlannedProgram, steps: int) -> ProgramSummary:
    """Return what a user is told of a program; times are of pictures with so many ``steps``."""
    info, kernels = planned.info, planned.kernels
    return ProgramSummary(
        plan=info.plan,
        compute=info.compute,
        kernels=info.tuned.kernels,
        from_records=info.tuned.from_records,
        improved=info.tuned.improved,
        from_baseline=info.tuned.from_baseline,
        baseline_time_share=info.tuned.baseline_time_share,
        borrowed=info.tuned.borrowed,
        measured_s=measured_seconds(kernels.capture, kernels.choices, steps),
        stage_records_s=stage_seconds(kernels.capture, kernels.choices),
        dispatches=sum(len(stage) for stage in planned.assembled.plan.stages.values()),
        scratch_bytes=planned.assembled.memory.nbytes,
        longest_dispatch_s=info.dispatches.longest_s,
        sliced=info.dispatches.sliced,
        limits=info.requires.limits,
        features=info.requires.features,
    )
