"""The shaders of a bundle by kernel, to be judged without running them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ...devices.limits import TIERS
from ...devices.offline.compiler import shader_digest
from ...devices.program import Shader
from ...support.enums import AttentionForm
from ...support.errors import BundleError
from ...tuner.compiled.kernel_program import KernelProgram
from ...tuner.ir import CaptureOptions
from ..format.documents import PROVENANCE, KernelSource, read_provenance
from ..format.reader import Bundle, BundleProgram

_NAMED = re.compile(r"kernels/(.+_[0-9a-f]{8})-\d+\.wgsl")
"""A kernel's name ends in digits of its id; glue has none."""


@dataclass(frozen=True)
class KernelWork:
    """A kernel's id, the FLOPs of one launch, and its launches in one run of each stage."""

    workload_id: str
    flops: float
    launches: Mapping[str, int]


def bundle_options(bundle: Bundle, program: BundleProgram) -> CaptureOptions:
    """Return the options that a program's model was captured with, as far as the manifest tells them."""
    image, weights = bundle.manifest.image, bundle.manifest.model.weights
    told = _told(bundle, program)
    names = [one.name for one in told] if told is not None else [shader.file for shader in program.plan.shaders]
    split = any("attention_scores" in name for name in names)
    attention = AttentionForm.SPLIT if split else AttentionForm.FUSED
    tier = TIERS.get(bundle.manifest.tier, TIERS["default"])
    most = tier.limits["maxStorageBufferBindingSize"]
    return CaptureOptions(
        width=image.width,
        height=image.height,
        batch=image.batch,
        guidance=image.guidance,
        max_binding=most,
        weights=weights,
        attention=attention,
        compute=program.info.compute,
    )


def bundle_programs(
    bundle: Bundle, program: BundleProgram, steps: int, work: Mapping[str, KernelWork]
) -> list[KernelProgram]:
    """Return a program's shaders by the kernel that they are named after; hand-written glue is left out.

    ``work`` is by the kernel's name; the FLOPs of a kernel that it lacks are unknown, and the launches are then those
    of its first shader. Where the bundle does not tell which shaders a kernel has, one that two kernels share is named
    after the first: what runs just before a kernel's own shaders is told as `KernelProgram.before`. Raises BundleError
    for a damaged bundle.
    """
    plan = program.plan
    owners = [_owner(shader.file) for shader in plan.shaders]
    shaders: dict[int, Shader] = {
        index: Shader(shader.entry, bundle.read(shader.file).decode(), (1, 1, 1))
        for index, shader in enumerate(plan.shaders)
        if owners[index]
    }
    own, told = _shaders_by_kernel(bundle, program, shaders)
    options = bundle_options(bundle, program)
    dispatches: Counter[tuple[str, int]] = Counter()
    before: dict[str, Counter[int]] = {name: Counter() for name in own}
    for stage, sequence in plan.stages.items():
        indices = [dispatch.shader for dispatch in sequence]
        for index, previous in zip(indices, [None, *indices], strict=False):
            dispatches[stage, index] += options.runs_per_image(stage, steps)
            if not told and owners[index] and previous in shaders and owners[previous] != owners[index]:
                before[owners[index]][previous] += 1
    found = []
    for name, indices in own.items():
        known = work.get(name)
        if known is not None:
            launches = {stage: runs * options.runs_per_image(stage, steps) for stage, runs in known.launches.items()}
        else:
            counted = {stage: dispatches[stage, indices[0]] for stage in plan.stages}
            launches = {stage: count for stage, count in counted.items() if count}
        shared = before[name].most_common(1)
        found.append(
            KernelProgram(
                name=name,
                workload_id=known.workload_id if known else "",
                launches=launches,
                flops=known.flops if known else None,
                shaders={shader_digest(shaders[index]): shaders[index] for index in indices},
                before=shader_digest(shaders[shared[0][0]]) if shared else "",
            )
        )
    return found


def _told(bundle: Bundle, program: BundleProgram) -> tuple[KernelSource, ...] | None:
    """Return what the bundle tells of the program's kernels; None where it does not."""
    told = read_provenance(bundle)
    return told.programs.get(program.info.plan) if told is not None else None


def _shaders_by_kernel(
    bundle: Bundle, program: BundleProgram, shaders: Collection[int]
) -> tuple[dict[str, list[int]], bool]:
    """Return the indices of each kernel's shaders, those of ``shaders``, and whether the bundle itself tells them."""
    found: dict[str, list[int]] = {}
    told = _told(bundle, program)
    if told is None:
        for index in shaders:
            found.setdefault(_owner(program.plan.shaders[index].file), []).append(index)
        return found, False
    places = {shader.file: index for index, shader in enumerate(program.plan.shaders) if index in shaders}
    for kernel in told:
        if not kernel.shaders or not places.keys() >= set(kernel.shaders):
            raise BundleError(f"{PROVENANCE} names shaders of {kernel.name} that the plan lacks", "build it again")
        found[kernel.name] = [places[file] for file in kernel.shaders]
    return found, True


def _owner(file: str) -> str:
    """Return the kernel that a shader's file is named after, as in ``kernels/NAME-0.wgsl``; empty for glue."""
    found = _NAMED.fullmatch(file)
    return found.group(1) if found else ""
