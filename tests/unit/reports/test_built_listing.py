"""What `wgtune build` prints, with the times that `--measure` takes."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from wgtune.build.bundle.builder import BuildSummary
from wgtune.build.bundle.planned_program import ProgramSummary
from wgtune.build.format.documents import ProgramTimes, StageTime
from wgtune.cli import build as command
from wgtune.database.schema.records import DeviceInfo
from wgtune.devices.device import Device
from wgtune.devices.discovery.discovery import Discovery
from wgtune.reports.listings.bundle import print_built
from wgtune.support.enums import ComputePrecision, Runtime, WeightPrecision
from wgtune.support.errors import UsageError

PROGRAM = ProgramSummary(
    plan="plan.json",
    compute=ComputePrecision.F32,
    kernels=3,
    from_records=2,
    improved=1,
    from_baseline=1,
    baseline_time_share=0.5,
    borrowed=(),
    measured_s=1.5,
    stage_records_s={"unet": 0.03},
    dispatches=4,
    scratch_bytes=1 << 18,
    longest_dispatch_s=0.1,
    sliced=0,
    limits={},
    features=(),
)
SUMMARY = BuildSummary(
    folder=Path("bundle"),
    nbytes=1 << 20,
    weight_bytes=1 << 19,
    weights=WeightPrecision.F32,
    samplers=("euler",),
    programs=(PROGRAM,),
    warnings=(),
    seconds=2.0,
)
HALF = replace(
    PROGRAM, plan="plan-f16.json", compute=ComputePrecision.F16, scratch_bytes=1 << 17, features=("shader-f16",)
)
STEP = StageTime("unet", 100, run_s=0.05, alone_s=0.04, gpu_s=0.045, launch_s=0.001)
TEXT = StageTime("clip", 10, run_s=0.01, alone_s=0.01, gpu_s=None, launch_s=0.0001)


def printed(*stages: StageTime, as_json: bool = False) -> str:
    out = io.StringIO()
    times = {"plan.json": ProgramTimes(stages, {"unet": 0.03})}
    print_built(SUMMARY, times, json=as_json, console=Console(file=out, width=80))
    return out.getvalue()


def test_a_measured_stage_is_told_beside_its_dispatches_and_its_records() -> None:
    (line,) = [line for line in printed(STEP).splitlines() if line.startswith("measured")]
    assert "a step takes 50.0 ms, its dispatches one by one 40.0 ms (0.80 of it); 30.0 ms by the records" in line
    assert "100 launches by themselves 1.00 ms" in line and "all in one pass 45.0 ms" in line


def test_what_was_not_measured_is_not_told() -> None:
    (line,) = [line for line in printed(TEXT).splitlines() if line.startswith("measured")]
    assert "the text encoder takes 10.0 ms" in line and "records" not in line and "clock" not in line
    assert "measured  " not in printed()


def test_json_has_the_stages_with_their_ratio() -> None:
    assert json.loads(printed(as_json=True))["programs"][0]["stages"] == []
    step, text = json.loads(printed(STEP, TEXT, as_json=True))["programs"][0]["stages"]
    assert (step["stage"], step["ratio"], step["records_s"]) == ("unet", pytest.approx(0.8), 0.03)
    assert (text["gpu_s"], text["records_s"]) == (None, None)


def test_each_of_several_programs_is_told() -> None:
    out = io.StringIO()
    print_built(replace(SUMMARY, programs=(HALF, PROGRAM)), json=False, console=Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert "640 KiB or 768 KiB of GPU memory" in out.getvalue()
    first, second = (
        lines.index("program    plan-f16.json: f16 between kernels"),
        lines.index("program    plan.json: f32 between kernels"),
    )
    assert first < second and sum(line.startswith("kernels") for line in lines) == 2
    assert any(line.startswith("needs      shader-f16") for line in lines[first:second])
    assert "program " not in printed()


def test_only_a_device_of_this_machine_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Device("vulkan:gpu-1", "vulkan", "v", "a", "GPU 1", "Maker 7", "discrete", False, {}, (), Runtime.WGPU, 0)
    monkeypatch.setattr(command, "discover", lambda: Discovery([here], []))
    assert command._device_here(DeviceInfo("vulkan:gpu-1", "vulkan", "v", "a", "GPU 1", False)) is here
    with pytest.raises(UsageError, match=r"metal:gpu-2.*cannot be measured: wgpu finds vulkan:gpu-1"):
        command._device_here(DeviceInfo("metal:gpu-2", "metal", "v", "a", "GPU 2", False))
