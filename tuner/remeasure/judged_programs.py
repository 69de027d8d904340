"""Programs to be judged without running them: a model's untuned baselines, or a device's best records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from ...database.reader import Reader
from ...database.schema.records import Record, WorkloadInfo
from ...devices.limits import Tier, find_tier
from ...devices.offline.compiler import shader_digest
from ...devices.program import Program
from ...support.enums import Runtime
from ...support.errors import WgtuneError
from ..compiled.kernel_program import KernelProgram
from ..ir import Capture, Kernel
from ..programs.cache import untuned_programs
from ..session.trial import stored_attempt, stored_kernel

Progress = Callable[[str, float], None]


def baseline_programs(capture: Capture, tier: Tier, steps: int, progress: Progress) -> list[KernelProgram]:
    """Return the untuned program of every kernel of ``capture``: the first baseline that becomes WGSL within ``tier``.

    That is what a device without records runs, and what `wgtune tune` measures first.
    """
    launches: dict[str, dict[str, int]] = {}
    for (stage, kernel_id), count in capture.calls_per_image(steps).items():
        launches.setdefault(kernel_id, {})[stage] = count
    found = []
    for done, (kernel_id, counts) in enumerate(launches.items()):
        kernel = capture.kernels[kernel_id]
        progress(kernel.name, done / len(launches))
        program, problem = _baseline(kernel, tier)
        found.append(_judged(kernel.name, kernel_id, counts, kernel.flops, program, problem))
    return found


def _baseline(kernel: Kernel, tier: Tier) -> tuple[Program | None, str]:
    problem = "no untuned schedule applies to it"
    for program in untuned_programs(kernel, tier):
        if isinstance(program, Program):
            return program, ""
        problem = program.message
    return None, problem


def record_programs(
    store: Reader,
    device_key: str,
    launches: Mapping[str, Mapping[str, int]],
    known: Callable[[Collection[str]], Mapping[str, tuple[str, ...]]],
    progress: Progress,
) -> list[KernelProgram]:
    """Return the program of the best record of every kernel, as a device's WGSL.

    Args:
        store: The database.
        device_key: The device; its records through wgpu are taken, or where there are none through a browser.
        launches: Launches for one batch of images, by kernel and stage.
        known: Takes digests of programs, and returns the shaders' digests of those that need not be made again.
        progress: Receives what is done, and the fraction done.
    """
    best: dict[str, Record] = {}
    for runtime in (Runtime.WGPU, Runtime.BROWSER):
        best = best or store.best(device_key, list(launches), runtime)
    workloads = store.workloads(list(launches))
    shaders = known([record.program_digest for record in best.values()])
    found = []
    for done, (kernel_id, counts) in enumerate(launches.items()):
        info, record = workloads[kernel_id], best.get(kernel_id)
        progress(info.name, done / len(launches))
        if record is None:
            found.append(_judged(info.name, kernel_id, counts, info.flops, None, "it has no record"))
        elif record.program_digest in shaders:
            digests = dict.fromkeys(shaders[record.program_digest])
            found.append(KernelProgram(info.name, kernel_id, counts, info.flops, digests, record.program_digest))
        else:
            program, problem = _recorded(info, record)
            made = _judged(info.name, kernel_id, counts, info.flops, program, problem)
            found.append(replace(made, changed=program is not None and program.digest != record.program_digest))
    return found


def _recorded(info: WorkloadInfo, record: Record) -> tuple[Program | None, str]:
    """Return the program that a record's schedule makes now, or why it makes none."""
    try:
        attempt = stored_attempt(stored_kernel(info), record.trace, find_tier(record.tier), record.kind)
    except WgtuneError as error:
        return None, error.message
    return (attempt.program, "") if isinstance(attempt.program, Program) else (None, attempt.error)


def _judged(
    name: str,
    kernel_id: str,
    launches: Mapping[str, int],
    flops: float,
    program: Program | None,
    problem: str,
) -> KernelProgram:
    if program is None:
        return KernelProgram(name, kernel_id, launches, flops, problem=problem)
    shaders = {shader_digest(shader): shader for shader in program.shaders}
    return KernelProgram(name, kernel_id, launches, flops, shaders, program.digest)
