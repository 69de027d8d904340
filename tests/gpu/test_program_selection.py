"""A bundle with two programs, natively: the one that the device can run, or the one that is asked for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_bundle import SyntheticBundle, make_bundle
from typer.testing import CliRunner

from wgtune.build.format.documents import read_measured, read_provenance
from wgtune.build.format.reader import Bundle, BundleProgram
from wgtune.build.format.sampler_tables import unpack_run
from wgtune.build.runtime import stage_times
from wgtune.build.runtime.pipeline import StableDiffusionPipeline
from wgtune.build.runtime.program_selection import runnable_programs, select_program
from wgtune.build.runtime.torch_noise import seeded_noise
from wgtune.build.runtime.webgpu_runtime import WebGpuRuntime
from wgtune.cli.app import app
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.support.enums import ComputePrecision
from wgtune.support.errors import BundleError, DeviceError, UsageError

F16, F32 = ComputePrecision.F16, ComputePrecision.F32


@pytest.fixture
def bundle(tmp_path: Path) -> SyntheticBundle:
    return make_bundle(tmp_path / "bundle", half=True)


def without_f16(device: Device) -> Device:
    return replace(device, features=tuple(name for name in device.features if name != "shader-f16"))


def test_half_floats_where_the_device_has_shader_f16(device: Device, bundle: SyntheticBundle) -> None:
    opened = Bundle.open(bundle.folder)
    able = replace(device, features=tuple({*device.features, "shader-f16"}))
    assert [select_program(opened, one).info.compute for one in (able, without_f16(device))] == [F16, F32]
    assert select_program(opened, able, F32).info.compute is F32
    assert [one.info.compute for one in runnable_programs(opened.programs, able)] == [F16, F32]
    with pytest.raises(DeviceError, match="lacks the feature shader-f16") as error:
        select_program(opened, without_f16(device), F16)
    assert "another program" in error.value.hint


def test_limits_of_a_program_count_too(device: Device, bundle: SyntheticBundle) -> None:
    able = replace(device, features=tuple({*device.features, "shader-f16"}))
    opened = Bundle.open(bundle.folder)
    half, full = opened.programs
    needs = replace(half.info.requires, limits={**half.info.requires.limits, "maxBufferSize": 1 << 52})
    demanding = replace(opened, programs=(replace(half, info=replace(half.info, requires=needs)), full))
    assert select_program(demanding, able) is full


def drawn(bundle: SyntheticBundle, device: Device, program: BundleProgram) -> np.ndarray:
    """RGBA8 of the prompt "boats" with seed 3 and two steps."""
    opened = Bundle.open(bundle.folder)
    table = opened.manifest.schedulers.tables["plain"]
    data = np.frombuffer(opened.read(table.file), "<f4")
    texts = [bundle.token_ids(text) for text in ("", "boats")]
    with WebGpuRuntime(opened, device, program=program) as runtime:
        run = unpack_run(data, table.runs[2])
        runtime.draw(texts, seeded_noise(run, 3, opened.manifest.image.latent), run, 7.5)
        return runtime.pixels().astype(int)


def test_the_programs_draw_the_same_picture(device: Device, bundle: SyntheticBundle) -> None:
    """Only the means of the context differ, by their rounding to half floats."""
    if "shader-f16" not in device.features:
        pytest.skip("this adapter has no half floats")
    half, full = (drawn(bundle, device, program) for program in Bundle.open(bundle.folder).programs)
    expected = bundle.expected("boats", seed=3).astype(int)
    assert np.abs(full - expected).max() <= 1 and np.abs(half - expected).max() <= 2


def test_a_program_that_the_bundle_lacks(device: Device, tmp_path: Path) -> None:
    make_bundle(tmp_path)
    with pytest.raises(BundleError, match="no program for f16"):
        StableDiffusionPipeline.from_bundle(tmp_path, device, compute=F16)
    with pytest.raises(UsageError, match="f8"):
        StableDiffusionPipeline.from_bundle(tmp_path, device, compute="f8")


def built_with_both(model: Path, output: Path) -> str:
    """Build with the command, and measure; return what it prints."""
    where = ["--model", str(model), "-o", str(output), "--no-releases", "--db", str(output.with_name("own.db"))]
    Store.open(str(output.with_name("own.db"))).close()
    result = CliRunner().invoke(
        app, ["build", *where, "--compute", "auto", "--no-page", "--max-steps", "20", "--measure"]
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_real_model_in_both_programs(
    demo_folder: Path, demo_bundle: Path, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The floats' program is that of a bundle without the other, and half floats draw nearly the same picture."""
    if "shader-f16" not in device.features:
        pytest.skip("this adapter has no half floats")
    monkeypatch.setattr(stage_times, "measure_stages", partial(stage_times.measure_stages, rounds=1))
    both = tmp_path / "both"
    told = built_with_both(demo_folder, both)
    assert "program    plan-f16.json: f16 between kernels" in told and "needs      shader-f16; " in told
    bundle, alone = Bundle.open(both), Bundle.open(demo_bundle)
    half, full = bundle.programs
    (plain,) = alone.programs
    files = bundle.manifest.files_of(full.info)
    assert {name: info.sha256 for name, info in files.items()} == {
        name: info.sha256 for name, info in alone.manifest.files_of(plain.info).items()
    }
    assert full.info.requires == plain.info.requires and full.info.capture == plain.info.capture
    assert half.info.requires.features == ("shader-f16",) and half.info.capture != full.info.capture
    scratch = [sum(b.nbytes for b in one.plan.buffers if not b.shard) for one in (half, full)]
    assert scratch[0] < 0.75 * scratch[1], (
        "what kernels pass on takes half the memory, what the runtimes write does not"
    )

    def picture(*options: str) -> np.ndarray:
        path = tmp_path / "out.png"
        drawn = ["generate", "--bundle", str(both), "--device", device.key, "--steps", "5", "-o", str(path)]
        result = CliRunner().invoke(app, [*drawn, "--prompt", "a lighthouse at dusk", "--seed", "7", *options])
        assert result.exit_code == 0, result.output
        with Image.open(path) as png:
            assert f"{png.info['compute']} between kernels" in result.stdout
            return np.asarray(png.convert("RGB")).astype(float)

    expected = picture("--compute", "f32")
    error = np.square(picture() - expected).mean()
    assert error > 0 and 10 * math.log10(255**2 / error) >= 50
    assert expected.std() > 5, "a flat picture would prove nothing"

    found, measured = read_provenance(bundle), read_measured(bundle)
    assert found is not None and set(found.programs) == {"plan.json", "plan-f16.json"}
    assert measured is not None and set(measured.programs) == set(found.programs)
    for one in (half, full):
        used = {name for kernel in found.programs[one.info.plan] for name in kernel.shaders}
        assert len(found.programs[one.info.plan]) == one.info.tuned.kernels and used < set(
            bundle.manifest.files_of(one.info)
        )
    for options, count in (([], 2), (["--compute", "f16"], 1)):
        shown = CliRunner().invoke(app, ["report", "bundle", str(both), "--json", *options])
        assert len(json.loads(shown.stdout)["programs"]) == count
