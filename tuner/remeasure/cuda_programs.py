"""A model's kernels as the CUDA that TVM writes, to be judged by NVIDIA's compilers without a GPU."""

from __future__ import annotations

import json
import re

import tvm
from tvm.target import Target

from ...devices.device import Device
from ...devices.limits import TIERS, Tier
from ...devices.offline.chips import Chip
from ...devices.offline.compiler import shader_digest
from ...devices.program import NativeProgram, Shader
from ...support.enums import Runtime
from ...support.errors import first_line
from ..codegen.baseline_schedules import baseline_schedules
from ..codegen.emit import emit
from ..codegen.tvm_native import tier_for
from ..compiled.kernel_program import KernelProgram
from ..ir import Capture, Kernel
from .judged_programs import Progress

_KERNEL = re.compile(r"__global__ void __launch_bounds__\((\d+)[^)]*\) (\w+)\([^)]*\) \{")


def cuda_tier(chip: Chip) -> Tier:
    """Return the limits under which TVM schedules for one of NVIDIA's chips, as for such a device that is here."""
    limits = {"maxComputeInvocationsPerWorkgroup": 1024, "maxComputeWorkgroupStorageSize": 48 << 10}
    device = Device(
        key=chip.key,
        backend="cuda",
        vendor=chip.vendor,
        architecture=chip.name,
        model=chip.products,
        driver="",
        adapter_type="discrete",
        software=False,
        limits=limits,
        features=(),
        runtime=Runtime.TVM_CUDA,
        index=0,
    )
    return tier_for(device, TIERS["default"])


def cuda_baselines(capture: Capture, chip: Chip, steps: int, progress: Progress) -> list[KernelProgram]:
    """Return the untuned CUDA program of every kernel of ``capture``: the first baseline that TVM generates."""
    launches: dict[str, dict[str, int]] = {}
    for (stage, kernel_id), count in capture.calls_per_image(steps).items():
        launches.setdefault(kernel_id, {})[stage] = count
    tier = cuda_tier(chip)
    found = []
    for done, (kernel_id, counts) in enumerate(launches.items()):
        kernel = capture.kernels[kernel_id]
        progress(kernel.name, done / len(launches))
        digest, shaders, problem = _baseline(kernel, tier)
        by_digest = {shader_digest(shader): shader for shader in shaders}
        found.append(KernelProgram(kernel.name, kernel_id, counts, kernel.flops, by_digest, digest, problem=problem))
    return found


def _baseline(kernel: Kernel, tier: Tier) -> tuple[str, list[Shader], str]:
    """Return the program's digest and its kernels, or why there are none."""
    problem = "no untuned schedule applies to it"
    for schedule in baseline_schedules(kernel, tier):
        program = emit(schedule.mod, tier)
        assert isinstance(program, NativeProgram)
        try:
            return program.digest, cuda_shaders(program), ""
        except Exception as error:  # TVM raises whatever its passes do
            problem = f"TVM generates no CUDA for it: {first_line(error)}"
    return "", [], problem


def cuda_shaders(program: NativeProgram) -> list[Shader]:
    """Return each kernel of a CUDA program: its name, the whole source, and the threads of a block.

    TVM compiles no machine code for it, which needs no toolkit and no GPU.
    """
    target = Target(json.loads(program.target))
    built = tvm.tirx.build(tvm.ir.load_json(program.module), target=target)
    source = str(built.imports[0].inspect_source())
    return [Shader(name, source, (int(threads), 1, 1)) for threads, name in _KERNEL.findall(source)]
