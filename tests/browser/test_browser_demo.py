"""A real bundle, as `wgtune build` makes it, draws the same in Chromium and natively."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import Serve
from drawing import difference, generate
from playwright.sync_api import Page

from wgtune.build.runtime.pipeline import StableDiffusionPipeline
from wgtune.support.enums import WeightPrecision

CASES = [
    {"prompt": "a photo of an astronaut riding a horse on mars", "steps": 6, "seed": 7},
    {"prompt": "", "negative": "blurry", "scheduler": "ddim", "steps": 3, "seed": 0},
    {"prompt": "A lighthouse, 夜 🐎", "scheduler": "euler", "steps": 5, "guidance": 3.0, "seed": 2**32 - 1},
    {"prompt": "word " * 100, "scheduler": "pndm", "steps": 3, "guidance": 1.0, "seed": 123},
    {"prompt": "cats", "negative": "dogs", "scheduler": "dpmpp-2m", "steps": 4, "guidance": 12.0, "seed": 2**53 - 1},
    {"prompt": "a red fox", "scheduler": "euler-a", "steps": 5, "seed": 2**31 + 1},
    {"prompt": "boats", "negative": "fog", "scheduler": "dpmpp-2m-sde", "steps": 4, "seed": 5},
    {"prompt": "boats", "scheduler": "dpm2-a", "steps": 3, "seed": 6},
    {"prompt": "boats", "scheduler": "dpmpp-sde", "steps": 3, "seed": 2**34 + 7},
    {"prompt": "snow", "scheduler": "unipc", "steps": 6, "seed": 8},
    {"prompt": "snow", "scheduler": "lms", "steps": 6, "seed": 8},
    {"prompt": "a mill", "scheduler": "lcm", "steps": 4, "guidance": 1.0, "seed": 9},
]


@pytest.fixture(scope="module")
def native(demo_bundle: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_bundle(demo_bundle)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_chromium_draws_what_wgpu_draws(
    page: Page, serve: Serve, demo_bundle: Path, native: StableDiffusionPipeline
) -> None:
    page.goto(serve(demo_bundle))
    for case in CASES:
        in_chromium, natively = draw_both(page, native, case)
        assert difference(in_chromium, natively) <= 1, case


def test_chromium_reads_stored_weights_without_a_feature(
    page: Page, serve: Serve, demo_bundle_of: Callable[[WeightPrecision], Path]
) -> None:
    """SwiftShader, Chromium's adapter here, has no ``shader-f16``. What q8 does not quantise is in half floats."""
    bundle = demo_bundle_of(WeightPrecision.Q8)
    pipeline = StableDiffusionPipeline.from_bundle(bundle)
    pipeline.set_progress_bar_config(disable=True)
    page.goto(serve(bundle))
    in_chromium, natively = draw_both(page, pipeline, CASES[1])
    assert difference(in_chromium, natively) <= 2


def test_chromium_draws_pictures_larger_than_a_binding(page: Page, serve: Serve, demo_in_parts: Path) -> None:
    page.goto(serve(demo_in_parts))
    native = StableDiffusionPipeline.from_bundle(demo_in_parts)
    native.set_progress_bar_config(disable=True)
    in_chromium, natively = draw_both(page, native, {"prompt": "a lighthouse", "steps": 1, "seed": 4})
    assert natively.shape == (1, 192, 192, 3)
    assert difference(in_chromium, natively) <= 2


def draw_both(page: Page, native: StableDiffusionPipeline, case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """RGB [batch, height, width, 3] drawn by the page and by wgpu."""
    options = {key: case[key] for key in ("scheduler", "steps", "guidance", "seed") if key in case}
    in_chromium = generate(page, case["prompt"], negativePrompt=case.get("negative", ""), **options)
    native.scheduler = case.get("scheduler", native.bundle.default_sampler.value)
    images = native(
        case["prompt"],
        negative_prompt=case.get("negative"),
        num_inference_steps=case["steps"],
        guidance_scale=case.get("guidance", 7.5),
        generator=torch.Generator("cpu").manual_seed(case["seed"]),
        output_type="pil",
    ).images
    return in_chromium[..., :3], np.stack([np.asarray(image) for image in images])
