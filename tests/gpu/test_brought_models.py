"""Bundles of what people bring draw what diffusers draws of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from original_layout import write_single_file
from safetensors.torch import load_file, save_file

import wgtune
from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.reader import Bundle
from wgtune.build.format.sampler_tables import Sampler
from wgtune.devices.device import Device
from wgtune.tuner.capture.model_files.lora import Merged
from wgtune.tuner.capture.sources import canonical_weight_name, read_loras, resolve_model


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


def lora_of(pipeline: Any, style: str, rank: int = 3) -> dict[str, torch.Tensor]:
    """A LoRA of attention, feed-forward, convolutions and the text encoder, in a trainer's names."""
    torch.manual_seed(5)
    tensors = {}
    for component, prefix in (("unet", "lora_unet"), ("text_encoder", "lora_te")):
        for name, module in getattr(pipeline, component).named_modules():
            convolution = isinstance(module, torch.nn.Conv2d)
            if not (isinstance(module, torch.nn.Linear) or (convolution and name.endswith("conv1"))):
                continue
            if "time_emb" in name or (component == "unet" and not convolution and "transformer_blocks" not in name):
                continue
            down = 0.3 * torch.randn(rank, *module.weight.shape[1:])
            up = 0.3 * torch.randn(module.weight.shape[0], rank, *[1] * (module.weight.ndim - 2))
            if style == "kohya":
                # Of transformers before the inner model's prefix was dropped, as these trainers have it.
                # diffusers 0.42 loses a text encoder's several alphas under transformers 5.24: it has one here.
                alpha = 3.0 if component == "unet" and len(name) % 2 else 1.5
                inner = name if component == "unet" else f"text_model.{name.removeprefix('text_model.')}"
                key = f"{prefix}_{inner.replace('.', '_')}"
                tensors |= {
                    f"{key}.lora_down.weight": down,
                    f"{key}.lora_up.weight": up,
                    f"{key}.alpha": torch.tensor(alpha),
                }
            else:
                key = f"{component}.{name}"
                tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    return tensors


@pytest.mark.parametrize("style", ["kohya", "peft"])
def test_a_lora_is_merged_as_diffusers_fuses_it(demo_folder: Path, tmp_path: Path, device: Device, style: str) -> None:
    pytest.importorskip("peft")
    reference = diffusers.StableDiffusionPipeline.from_pretrained(demo_folder)
    path = tmp_path / f"{style}.safetensors"
    save_file(lora_of(reference, style), path)
    source = resolve_model(str(demo_folder))
    (lora,) = read_loras(source, [f"{path}:0.6"])
    plain = {stage: source.load_weights(stage) for stage in ("clip", "unet", "vae")}
    assert lora.unmatched(plain) == []
    reference.load_lora_weights(str(tmp_path), weight_name=path.name)
    reference.fuse_lora(lora_scale=0.6)
    reference.unload_lora_weights()
    changed = 0
    for stage, network in (("clip", reference.text_encoder), ("unet", reference.unet)):
        merged = Merged(plain[stage], [lora], stage)
        for name, expected in network.state_dict().items():
            name = canonical_weight_name(stage, name)
            if name in merged:
                torch.testing.assert_close(merged[name], expected, rtol=1e-5, atol=1e-5)
                changed += not torch.equal(merged[name], plain[stage][name])
    assert changed == sum(map(len, lora.layers.values())) > 20
    if style == "kohya":
        summary = build_bundle(request(demo_folder, tmp_path / "dist", loras=(f"{path}:0.6",)), None)
        assert any("need no tuning again" in line for line in summary.warnings)
        (info,) = Bundle.open(tmp_path / "dist").manifest.model.loras
        assert (info.name, info.scale) == ("kohya.safetensors", 0.6)
        assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert largest_difference(tmp_path / "dist", reference, device) <= 2
        own = diffusers.StableDiffusionPipeline.from_pretrained(demo_folder)
        assert largest_difference(tmp_path / "dist", own, device) > 5


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_textual_inversion_is_a_word(demo_folder: Path, tmp_path: Path, device: Device, vectors: int) -> None:
    torch.manual_seed(4)
    files = [tmp_path / "learned.safetensors", tmp_path / "mydog.safetensors"]
    save_file({"<mycat>": 3 * torch.randn(32)}, files[0])
    save_file({"emb_params": 3 * torch.randn(vectors, 32)}, files[1])
    build_bundle(request(demo_folder, tmp_path / "dist", textual_inversions=tuple(map(str, files))), None)
    reference = diffusers.StableDiffusionPipeline.from_pretrained(demo_folder)
    reference.load_textual_inversion(str(tmp_path), weight_name="learned.safetensors")
    (vector,) = load_file(files[1]).values()
    reference.load_textual_inversion(vector, token="mydog")
    for prompt in ("a photo of <mycat>, and mydog", "<mycat> mydog mydog", "a cat"):
        assert largest_difference(tmp_path / "dist", reference, device, prompt) <= 1
    plain = diffusers.StableDiffusionPipeline.from_pretrained(demo_folder)
    assert largest_difference(tmp_path / "dist", plain, device, "a photo of <mycat>") > 2
