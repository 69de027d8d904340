"""The demo pipeline: what diffusers, the tokenizer and capture make of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wgtune.cli.demo.model import make_demo_pipeline, write_clip_tokenizer
from wgtune.support.errors import CaptureError
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pipeline(demo_folder: Path):
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(demo_folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(pipeline, prompt: str, seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return pipeline(prompt, num_inference_steps=6, generator=generator, output_type="np").images[0]


def test_the_tokenizer_gives_clips_own_ids_every_way_it_is_loaded(demo_folder: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

    # The ids that OpenAI's CLIP gives for this sentence.
    ids = [49406, 320, 1125, 539, 550, 18376, 267, 6765, 256, 49407]
    text = "A photo of an  astronaut, riding!"
    tokenizer = CLIPTokenizer.from_pretrained(demo_folder / "tokenizer")
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.model_max_length == 77
    padded = tokenizer(text, padding="max_length")["input_ids"]
    assert padded == ids + [49407] * 67
    assert Tokenizer.from_file(str(demo_folder / "tokenizer" / "tokenizer.json")).encode(text).ids == ids
    merges = (demo_folder / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert len(merges) == 1 + 49408 - 512 - 2


def test_a_missing_vocabulary_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CaptureError, match="vocabulary") as error:
        write_clip_tokenizer(tmp_path)
    assert error.value.hint == "pip install --no-deps open_clip_torch"


def test_the_vocabularys_package_is_not_imported(demo_folder: Path) -> None:
    import sys

    assert "open_clip" not in sys.modules


def test_a_seed_means_the_same_weights(demo_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(torch.initial_seed() + 1)  # what torch draws by itself must not be left in any layer
    again = make_demo_pipeline(tmp_path / "again", seed=1)
    other = make_demo_pipeline(tmp_path / "other", seed=2)
    for path in demo_folder.rglob("*.safetensors"):
        first, second, third = (
            load_file(folder / path.relative_to(demo_folder)) for folder in (demo_folder, again, other)
        )
        assert all(torch.equal(first[name], second[name]) for name in first), path
        assert any(not torch.equal(first[name], third[name]) for name in first), path


def test_pictures_are_colourful_and_follow_seed_and_prompt(pipeline) -> None:
    fox = draw(pipeline, "a red fox in the snow", 7)
    assert fox.shape == (128, 128, 3)
    assert fox.std() > 0.1, "grey"
    assert ((fox == 0) | (fox == 1)).mean() < 0.25, "mostly clipped"
    assert np.ptp(fox.mean(axis=(0, 1))) > 0.02, "no colour"
    # Neighbouring pixels are alike: structure, not noise.
    assert np.abs(np.diff(fox, axis=0)).mean() < 0.2 * fox.std()
    assert np.abs(draw(pipeline, "a red fox in the snow", 8) - fox).mean() > 0.05
    assert np.abs(draw(pipeline, "a house by the sea", 7) - fox).mean() > 0.02
    assert np.array_equal(draw(pipeline, "a red fox in the snow", 7), fox)


def test_it_has_every_element_of_the_real_thing_in_few_kernels(demo_folder: Path) -> None:
    source = resolve_model(str(demo_folder))
    assert source.has_weights
    assert source.scheduler["_class_name"] == "PNDMScheduler"
    capture = capture_model(source)
    assert len(capture.kernels) <= 76
    names = " ".join(kernel.name for kernel in capture.kernels.values())
    for operator in ("attention", "conv2d", "upsample", "group_norm", "layer_norm", "sin", "take"):
        assert operator in names
    assert capture.stages["unet"].inputs[0].shape == (2, 4, 16, 16)
    assert capture.stages["vae"].outputs[0].shape == (1, 3, 128, 128)
    # 20 steps take seconds on two CPU cores: a few GFLOP.
    calls = capture.calls_per_image(steps=20)
    assert sum(count * capture.kernels[kernel].flops for (_, kernel), count in calls.items()) < 5e9
