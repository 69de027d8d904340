"""Kernels that share a shader draw what they draw with shaders of their own, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wgtune.build.bundle import builder
from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.reader import Bundle
from wgtune.build.runtime.pipeline import StableDiffusionPipeline
from wgtune.devices.device import Device


def test_the_picture_is_the_same_to_the_bit(
    demo_folder: Path, demo_bundle: Path, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "share_shaders", dict)
    build_bundle(BuildRequest(str(demo_folder), tmp_path / "plain", max_steps=2, page=False), None)
    shared, plain = Bundle.open(demo_bundle), Bundle.open(tmp_path / "plain")
    assert len(shared.plan.shaders) < len(plain.plan.shaders)
    assert {name: len(stage) for name, stage in shared.plan.stages.items()} == {
        name: len(stage) for name, stage in plain.plan.stages.items()
    }
    images = []
    for folder in (demo_bundle, tmp_path / "plain"):
        pipeline = StableDiffusionPipeline.from_bundle(folder, device)
        noise = torch.Generator().manual_seed(1)
        images.append(pipeline("a fox", num_inference_steps=2, generator=noise, output_type="np").images)
        pipeline.runtime.close()
    assert np.array_equal(images[0], images[1])
