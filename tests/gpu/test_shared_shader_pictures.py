"""Kernels that share a shader, and sums in the place of a summand, draw what kernels as measured draw, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wgtune.build.bundle import planned_program
from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.reader import Bundle
from wgtune.build.format.sampler_tables import Sampler
from wgtune.build.runtime.pipeline import StableDiffusionPipeline
from wgtune.devices.device import Device
from wgtune.tuner.ir import CaptureOptions


def test_the_picture_is_the_same_to_the_bit(
    demo_folder: Path, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(name: str) -> Bundle:
        options = CaptureOptions(width=64, height=64)
        request = BuildRequest(
            str(demo_folder), tmp_path / name, options=options, max_steps=1, samplers=(Sampler.DDIM,), page=False
        )
        build_bundle(request, None)
        return Bundle.open(tmp_path / name)

    def drawn(name: str) -> np.ndarray:
        pipeline = StableDiffusionPipeline.from_bundle(tmp_path / name, device)
        noise = torch.Generator().manual_seed(1)
        image = pipeline("a fox", num_inference_steps=1, generator=noise, output_type="np").images
        pipeline.runtime.close()
        return image

    shared = built("shared")
    monkeypatch.setattr(planned_program, "share_shaders", dict)
    placed = built("placed")
    monkeypatch.setattr(planned_program, "add_in_place", lambda capture, programs: (capture, dict(programs)))
    plain = built("plain")
    plans = [bundle.programs[0].plan for bundle in (shared, placed, plain)]
    assert len(plans[0].shaders) < len(plans[1].shaders)
    bindings = [sum(len(call.bindings) for stage in plan.stages.values() for call in stage) for plan in plans]
    assert bindings[1] < bindings[2]
    dispatches = [[len(one) for one in plan.stages.values()] for plan in plans]
    assert dispatches[0] == dispatches[1] == dispatches[2]
    picture = drawn("plain")
    assert np.array_equal(drawn("placed"), picture) and np.array_equal(drawn("shared"), picture)
