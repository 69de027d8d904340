"""The native runtime over a bundle that numpy can follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade_bundle import (
    BATCH,
    CHANNELS,
    HEIGHT_PIXELS,
    LATENT_HEIGHT,
    LATENT_WIDTH,
    WIDTH_PIXELS,
    embedded,
    unet,
    write_bundle,
)

from wgtune.build.format.reader import Bundle
from wgtune.build.format.sampler_tables import Sampler, SamplerRun
from wgtune.build.runtime.webgpu_runtime import RunStopped, WebGpuRuntime
from wgtune.devices.device import Device
from wgtune.support.errors import BundleError, DeviceError

NOISE = np.random.default_rng(0).standard_normal((3, BATCH, CHANNELS, LATENT_HEIGHT, LATENT_WIDTH)).astype(np.float32)
NEGATIVE, FOX, DOG = [10, 11, 12, 12, 12, 12], [10, 1, 3, 11, 12, 12], [10, 1, 5, 11, 12, 12]


def expected_latents(run: SamplerRun, texts: list[list[int]], guidance: float | None) -> np.ndarray:
    """The final latents as docs/bundle.md says, in numpy."""
    slots = np.zeros((2 + run.states, *NOISE.shape[1:]), np.float32)
    drawn = iter(NOISE)
    for call in range(run.calls + 1):
        if run.draws[call]:
            slots[0] = next(drawn)
        slots[2:] = np.tensordot(run.rows[call], slots, 1)
        latents = slots[2]
        if call == run.calls:
            break
        batch = latents if guidance is None else np.concatenate([latents, latents])
        output = unet(batch, run.timesteps[call], np.stack([embedded(t) for t in texts]))
        if guidance is not None:
            negative, positive = output[:BATCH], output[BATCH:]
            output = negative + np.float32(guidance) * (positive - negative)
        slots[1] = output
    assert not list(drawn)
    return latents


@pytest.mark.parametrize("guided", [True, False])
def test_a_run_is_what_the_format_says(device: Device, tmp_path: Path, guided: bool) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", guidance=guided))
    run = bundle.run(Sampler.EULER, 3)
    texts = [NEGATIVE, NEGATIVE, FOX, DOG] if guided else [FOX, DOG]
    seen: list[tuple[int, int]] = []
    loading: list[tuple[str, float]] = []
    with WebGpuRuntime(bundle, device, lambda what, done: loading.append((what, done))) as runtime:
        for _ in range(2):
            # Twice: nothing of the first run may be left in the second.
            runtime.draw(texts, NOISE, run, 3.0, lambda done, calls: seen.append((done, calls)))
        latents, image, pixels = runtime.latents(), runtime.image(), runtime.pixels()
        runtime.draw(texts, NOISE, run, 3.0, decode=False)
        assert np.array_equal(runtime.latents(), latents)
    np.testing.assert_allclose(latents, expected_latents(run, texts, 3.0 if guided else None), atol=1e-4, rtol=1e-5)
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2
    assert {what for what, _ in loading} == {"load weights", "compile shaders"}
    assert all(0 <= done <= 1 for _, done in loading)
    assert len(runtime.timing.step_s) == 3 and runtime.timing.total_s > 0
    copied = np.resize(latents.reshape(-1), image.size).reshape(BATCH, 3, HEIGHT_PIXELS, WIDTH_PIXELS)
    assert np.array_equal(image, copied)
    assert np.array_equal(pixels[..., :3], (image.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))


def test_a_run_can_be_stopped(device: Device, tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    with WebGpuRuntime(bundle, device) as runtime:
        calls: list[int] = []

        def stop(done: int, _: int) -> bool:
            calls.append(done)
            return done < 2

        with pytest.raises(RunStopped):
            runtime.draw([NEGATIVE, NEGATIVE, FOX, DOG], NOISE, bundle.run(Sampler.EULER, 3), 1.0, stop)
        assert calls == [1, 2]


def test_a_sampler_that_remembers_more_than_the_bundle_has_room_for(device: Device, tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    run = SamplerRun(np.ones(1, np.float32), np.array([True, False]), np.zeros((2, 3, 5), np.float32))
    with WebGpuRuntime(bundle, device) as runtime, pytest.raises(BundleError, match="no room for a sampler of 3"):
        runtime.draw([NEGATIVE, NEGATIVE, FOX, DOG], NOISE[:1], run, 1.0)


def test_too_small_a_device_is_told_apart_by_limit_and_feature(device: Device, tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", limits={"maxStorageBufferBindingSize": 1 << 50}))
    with pytest.raises(DeviceError, match=f"maxStorageBufferBindingSize: the bundle needs {1 << 50}"):
        WebGpuRuntime(bundle, device)
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    (program,) = bundle.programs
    requires = replace(program.info.requires, features=("texture-compression-astc",))
    wanting = replace(bundle, programs=(replace(program, info=replace(program.info, requires=requires)),))
    with pytest.raises(DeviceError, match="lacks the feature texture-compression-astc"):
        WebGpuRuntime(wanting, device)


def test_damaged_weights_are_found_while_they_are_loaded(device: Device, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    bundle = Bundle.open(folder)
    shard = folder / "weights" / "shard-000.bin"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"shard-000\.bin has the wrong SHA-256"):
        WebGpuRuntime(bundle, device)


def test_a_shader_that_the_driver_refuses_is_a_device_error(device: Device, tmp_path: Path) -> None:
    import hashlib
    import json

    folder = write_bundle(tmp_path / "bundle")
    text = "@compute @workgroup_size(64) fn main() { nonsense; }"
    (folder / "kernels" / "vae.wgsl").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["kernels/vae.wgsl"] = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DeviceError, match="failed"):
        WebGpuRuntime(Bundle.open(folder), device)
