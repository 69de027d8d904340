"""Draws held-out captions with a pipeline, and counts the pictures that show what their caption says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..reader import mistakes
from ..scenes import Scene, random_scene

STEPS, GUIDANCE = 20, 7.5
_SEED = 40


@dataclass(frozen=True)
class Score:
    """How many captions were drawn, and what is wrong, by caption, with the pictures that are not right."""

    drawn: int
    wrong: dict[str, list[str]]


def held_out_scenes(number: int, seed: int = _SEED) -> list[Scene]:
    """Scenes of combinations that training never shows, all with other captions."""
    random = np.random.default_rng(seed)
    scenes: dict[str, Scene] = {}
    while len(scenes) < number:
        scene = random_scene(random, held_out=True)
        scenes.setdefault(scene.caption, scene)
    return list(scenes.values())


def draw_scenes(
    pipeline: Any, scenes: Sequence[Scene], steps: int = STEPS, guidance: float = GUIDANCE
) -> list[np.ndarray]:
    """Draw each caption by a diffusers pipeline, the n-th with seed n: (height, width, 3), uint8."""
    generators = [torch.Generator().manual_seed(index) for index in range(len(scenes))]
    drawn = pipeline(
        [scene.caption for scene in scenes],
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        output_type="np",
    ).images
    return list((drawn * 255).round().astype(np.uint8))


def judge(scenes: Sequence[Scene], pictures: Sequence[np.ndarray]) -> Score:
    """Compare each picture with its scene's caption."""
    found = {scene.caption: mistakes(scene, picture) for scene, picture in zip(scenes, pictures, strict=True)}
    return Score(len(found), {caption: wrong for caption, wrong in found.items() if wrong})


def score(folder: Path, number: int) -> Score:
    """Draw ``number`` held-out captions with the pipeline in ``folder``, and judge the pictures."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    scenes = held_out_scenes(number)
    return judge(scenes, draw_scenes(pipeline, scenes))
