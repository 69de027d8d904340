"""What a device refuses before anything is submitted to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.case_file import CaseError
from wgtune.devices.measure.requirements import UnsupportedProgram, accept_wgsl, check_buffers
from wgtune.devices.program import Buffer, Dispatch, NativeProgram, Program, Requirements, Shader
from wgtune.support.enums import Runtime

LIMITS = TIERS["default"].limits
DEVICE = Device("vulkan:x", "vulkan", "x", "", "x", "1", "discrete", False, LIMITS, ("subgroups",), Runtime.WGPU, 0)
NEEDS = Requirements(256, (256, 1, 1), 16384, 8, 128 << 20, ("subgroups",))
X, Y = Buffer("arg", 0), Buffer("arg", 1)
PROGRAM = Program((Shader("main", "", (256, 1, 1)),), (Dispatch(0, (X, Y), (65535, 1, 1)),), (4,), NEEDS)
CASE = Path("a.safetensors")


def test_what_meets_each_limit_is_accepted() -> None:
    assert accept_wgsl(DEVICE, PROGRAM) is PROGRAM
    check_buffers(DEVICE, PROGRAM, CASE, {0: 128 << 20, 1: 4})


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (replace(PROGRAM, needs=replace(NEEDS, threads=257)), "maxComputeInvocationsPerWorkgroup = 257, .* offers 256"),
        (replace(PROGRAM, needs=replace(NEEDS, workgroup_size=(1, 1, 65))), "maxComputeWorkgroupSizeZ = 65"),
        (replace(PROGRAM, needs=replace(NEEDS, features=("shader-f16",))), "feature shader-f16, which vulkan:x lacks"),
        (replace(PROGRAM, dispatches=(Dispatch(0, (X, Y), (1, 65536, 1)),)), "maxComputeWorkgroupsPerDimension"),
        (NativeProgram("{}", "{}", ("main",), NEEDS), "native code"),
    ],
)
def test_what_exceeds_a_limit_is_named(program: Program | NativeProgram, words: str) -> None:
    with pytest.raises(UnsupportedProgram, match=words):
        accept_wgsl(DEVICE, program)


def test_buffers_that_are_too_large_or_missing() -> None:
    with pytest.raises(UnsupportedProgram, match="parameter 1 takes 134217732 bytes, and vulkan:x's maxStorageBuffer"):
        check_buffers(DEVICE, PROGRAM, CASE, {0: 4, 1: (128 << 20) + 4})
    with pytest.raises(UnsupportedProgram, match="scratch buffer 0 takes"):
        check_buffers(DEVICE, replace(PROGRAM, scratch=((128 << 20) + 4,)), CASE, {0: 4, 1: 4})
    with pytest.raises(CaseError, match=r"a\.safetensors lacks parameter 1"):
        check_buffers(DEVICE, PROGRAM, CASE, {0: 4})
