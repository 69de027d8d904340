"""Bundles of what people bring draw what diffusers draws of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from original_layout import write_single_file

import wgtune
from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.sampler_tables import Sampler
from wgtune.devices.device import Device
from wgtune.tuner.capture.sources import resolve_model


def largest_difference(folder: Path, reference: Any, device: Device, prompt: str = "a red fox") -> int:
    """In levels of 255, between a picture of a bundle and of a pipeline of diffusers'."""
    pipeline = wgtune.StableDiffusionPipeline.from_bundle(folder, device)
    reference.scheduler = diffusers.DDIMScheduler.from_config(reference.scheduler.config)
    pipeline.scheduler = "ddim"
    images = []
    for pipe in (pipeline, reference):
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(3)
        images.append(np.asarray(pipe(prompt, num_inference_steps=3, generator=generator).images[0], np.int32))
    pipeline.runtime.close()
    assert images[1].std() > 5, "a flat picture would prove nothing"
    return int(np.abs(images[0] - images[1]).max())


def request(model: Path, output: Path, **more: Any) -> BuildRequest:
    return BuildRequest(str(model), output, samplers=(Sampler.DDIM,), max_steps=3, page=False, **more)


def test_a_text_encoder_that_masks_padding(demo_folder: Path, device: Device, tmp_path: Path) -> None:
    shutil.copytree(demo_folder, tmp_path / "model")
    config = tmp_path / "model" / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_attention_mask": True}))
    build_bundle(request(tmp_path / "model", tmp_path / "dist"), None)
    reference = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert largest_difference(tmp_path / "dist", reference, device) <= 1
    unmasked = diffusers.StableDiffusionPipeline.from_pretrained(demo_folder)
    assert largest_difference(tmp_path / "dist", unmasked, device) > 2, "the mask would change nothing"


def test_a_model_in_one_file(demo_folder: Path, device: Device, tmp_path: Path) -> None:
    reference = diffusers.StableDiffusionPipeline.from_pretrained(demo_folder)
    path = write_single_file(reference, tmp_path / "mine.safetensors")
    source = resolve_model(str(path), str(demo_folder))
    own = resolve_model(str(demo_folder))
    for stage in ("clip", "unet", "vae"):
        expected, got = own.load_weights(stage), source.load_weights(stage)
        assert {n for n in expected if not n.endswith("position_ids")} <= set(got)
        assert all(torch.equal(got[name].reshape(expected[name].shape), expected[name]) for name in got)
    build_bundle(request(path, tmp_path / "dist", config=str(demo_folder)), None)
    assert largest_difference(tmp_path / "dist", reference, device) <= 1
