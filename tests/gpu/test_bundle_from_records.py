"""The whole of `wgtune build` and `wgtune generate`: from a model and a database to a PNG."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.reader import Bundle
from wgtune.build.format.sampler_tables import Sampler
from wgtune.build.runtime.generate import generate
from wgtune.build.runtime.painter import GenerateOptions
from wgtune.build.runtime.pipeline import StableDiffusionPipeline
from wgtune.cli.app import app
from wgtune.database.schema.records import (
    DeviceInfo,
    Runtime,
    SessionInfo,
    SessionOutcome,
    TrialEnd,
    TrialKind,
    TrialStart,
    WorkloadInfo,
)
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import find_tier
from wgtune.support.enums import TrialState
from wgtune.support.errors import BundleError, DeviceError, UsageError
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel

DEVICE = DeviceInfo("vulkan:bench", "vulkan", "v", "a", "bench", False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "records.db")) as opened:
        yield opened


def record_last_schedule(store: Store, kernels: list[Kernel]) -> None:
    """A verified record of each kernel: the last of its untuned schedules, which differs from the first for most."""
    info = SessionInfo(DEVICE, Runtime.WGPU, "", {}, {}, "demo", "", "default", {}, 0, "", "host", os.getpid())
    session = store.begin_session(info)
    for kernel in kernels:
        *_, schedule = baseline_schedules(kernel, find_tier("default"))
        program = emit_wgsl(schedule.mod, find_tier("default"))
        store.add_workloads([WorkloadInfo(kernel.id, kernel.name, kernel.text, (), (), (), 0.0, 0)])
        trial = store.begin_trial(
            TrialStart(
                session,
                kernel.id,
                TrialKind.SEARCH,
                trace_to_json(schedule),
                program.digest,
                program.to_json()["needs"],
                1,
                0,
            )
        )
        store.end_trial(trial, TrialEnd(TrialState.OK, (1e-3,), "wall", max_error=0.0))
    store.end_session(session, SessionOutcome.COMPLETED)


def test_records_are_built_in_and_the_picture_stays_the_same(
    demo_folder: Path, demo_bundle: Path, store: Store, device: Device, tmp_path: Path
) -> None:
    capture = capture_model(resolve_model(str(demo_folder)))
    # The text encoder's kernels are small enough for any schedule to be right on any driver.
    clip = capture.stages["clip"].calls_per_kernel()
    record_last_schedule(store, [capture.kernels[kernel] for kernel in clip])
    seen: list[float] = []
    summary = build_bundle(
        BuildRequest(str(demo_folder), tmp_path / "dist", DEVICE, max_steps=3, page=False),
        store,
        lambda what, done: seen.append(done),
    )
    (told,) = summary.programs
    assert (told.from_records, told.improved) == (len(clip), len(clip))
    assert told.from_baseline == told.kernels - len(clip)
    assert told.baseline_time_share is not None and 0 < told.baseline_time_share < 1
    assert told.measured_s == pytest.approx(1e-3 * 2 * sum(clip.values())), "both prompts"
    assert seen == sorted(seen) and seen[-1] == 1
    built, untuned = Bundle.open(tmp_path / "dist"), Bundle.open(demo_bundle)
    (program,), (plain,) = built.programs, untuned.programs
    assert program.info.tuned.device == DEVICE.key and not program.info.tuned.software
    assert program.info.tuned.from_records == len(clip)
    assert summary.nbytes == built.nbytes
    assert [built.read(s.file) for s in program.plan.shaders] != [untuned.read(s.file) for s in plain.plan.shaders]
    images = []
    for folder in (tmp_path / "dist", demo_bundle):
        pipeline = StableDiffusionPipeline.from_bundle(folder, device)
        noise = torch.Generator().manual_seed(1)
        images.append(pipeline("a fox", num_inference_steps=2, generator=noise, output_type="np").images)
        pipeline.runtime.close()
    np.testing.assert_allclose(images[0], images[1], atol=1e-4)


def test_a_device_that_the_database_does_not_know_is_refused(demo_folder: Path, store: Store, tmp_path: Path) -> None:
    record_last_schedule(store, [])
    command = ["build", "--model", str(demo_folder), "--device", "vulkan:typo", "--db", str(tmp_path / "records.db")]
    result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "dist"), "--no-releases", "--no-page"])
    assert result.exit_code == 1 and not (tmp_path / "dist").exists()
    assert isinstance(result.exception, UsageError) and "no device 'vulkan:typo'" in result.exception.message


def test_what_cannot_be_built_leaves_nothing_behind(demo_folder: Path, tmp_path: Path) -> None:
    def refused(request: BuildRequest, what: str) -> None:
        with pytest.raises((BundleError, UsageError), match=what) as error:
            build_bundle(request, None)
        assert error.value.hint
        assert not list(tmp_path.glob("**/.dist.*")) and not (tmp_path / "dist").exists()

    target = tmp_path / "dist"
    refused(BuildRequest("sd-v1-5", target, page=False), "configuration without weights")
    refused(BuildRequest(str(demo_folder), target, max_steps=0, page=False), "0 steps")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").touch()
    refused(BuildRequest(str(demo_folder), mine, page=False), "not a bundle")
    assert os.listdir(mine) == ["thesis.txt"]
    bare = tmp_path / "bare"
    bare.mkdir()
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        (bare / part).symlink_to(demo_folder / part)
    refused(BuildRequest(str(bare), target, page=False), "no scheduler")
    (bare / "scheduler").mkdir()
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    (bare / "scheduler" / "scheduler_config.json").write_text(json.dumps(flow))
    refused(BuildRequest(str(bare), target, page=False), "FlowMatchEulerDiscreteScheduler")


def test_an_interrupted_build_leaves_the_earlier_bundle(demo_folder: Path, tmp_path: Path) -> None:
    request = BuildRequest(str(demo_folder), tmp_path / "dist", max_steps=1, samplers=(Sampler.DDIM,), page=False)
    build_bundle(request, None)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "dist").rglob("*")}

    def interrupt(what: str, done: float) -> None:
        if what.startswith("weights, "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bundle(request, None, interrupt)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "dist").rglob("*")} == before
    assert os.listdir(tmp_path) == ["dist"]


def test_generate_writes_a_png_that_says_how_it_was_made(demo_bundle: Path, device: Device, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    made = generate(
        demo_bundle,
        "a red 猫",
        tmp_path / "out.png",
        GenerateOptions(negative_prompt="blurry", steps=3, scheduler="euler"),
        seed=7,
        device=device.key,
        progress=lambda what, done: told.append((what, done)),
    )
    assert (made.width, made.height, made.scheduler, made.device) == (128, 128, "euler", device.key)
    assert made.timing.total_s > 0 and "step 3 of 3" in dict(told)
    assert [done for _, done in told] == sorted(done for _, done in told) and told[-1][1] == 1
    with Image.open(tmp_path / "out.png") as png:
        assert png.mode == "RGB" and png.size == (128, 128)
        text, pixels = png.text, np.asarray(png)
    assert {k: text[k] for k in ("prompt", "negative_prompt", "seed", "steps", "guidance", "scheduler")} == {
        "prompt": "a red 猫",
        "negative_prompt": "blurry",
        "seed": "7",
        "steps": "3",
        "guidance": "7.5",
        "scheduler": "euler",
    }
    pipeline = StableDiffusionPipeline.from_bundle(demo_bundle, device)
    pipeline.scheduler = "EulerDiscreteScheduler"
    again = pipeline(
        "a red 猫", negative_prompt="blurry", num_inference_steps=3, generator=torch.Generator().manual_seed(7)
    )
    assert np.array_equal(np.asarray(again.images[0]), pixels)
    pipeline.runtime.close()


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ({"seed": -1}, UsageError, "-1 is no seed"),
        ({"options": GenerateOptions(steps=1001, scheduler="ddim")}, BundleError, "cannot make 1001 steps"),
        ({"options": GenerateOptions(steps=0)}, UsageError, "0 steps"),
        ({"options": GenerateOptions(scheduler="restart")}, BundleError, "restart"),
        ({"options": GenerateOptions(guidance=float("nan"))}, UsageError, "guidance"),
        ({"output": Path("picture.jpg")}, UsageError, "not the name of a PNG"),
        ({"output": Path("/nowhere/picture.png")}, UsageError, "no folder"),
        ({"bundle": Path("/nowhere")}, BundleError, "no folder"),
        ({"device": "no such device"}, DeviceError, "no such device"),
    ],
)
def test_generate_says_what_is_wrong(
    demo_bundle: Path, tmp_path: Path, arguments: dict, error: type[Exception], what: str
) -> None:
    values = {"bundle": demo_bundle, "prompt": "a fox", "output": tmp_path / "out.png", **arguments}
    with pytest.raises(error, match=what) as raised:
        generate(**values)
    assert raised.value.hint  # type: ignore[attr-defined]
    assert not (tmp_path / "out.png").exists()
