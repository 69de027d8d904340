"""The training set of the denoiser: latents of drawn scenes with the tokens of their captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ....support.console import Report
from ..scenes import draw, random_scene
from .autoencoder import to_tensor
from .checkpoints import Settings, keep, load_kept

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import PreTrainedTokenizerBase

_PART = 64


@dataclass
class Examples:
    """``latents`` (number, channels, height, width) of unit size; ``tokens`` (number, length); ``empty`` (length)."""

    latents: torch.Tensor
    tokens: torch.Tensor
    empty: torch.Tensor


@torch.no_grad()
def make_examples(
    vae: AutoencoderKL,
    tokenizer: PreTrainedTokenizerBase,
    number: int,
    seed: int,
    settings: Settings,
    path: Path,
    report: Report,
) -> Examples:
    """Draw and encode ``number`` scenes, none of a held-out combination; read them from ``path`` where they are kept.

    ``settings`` are those that the autoencoder follows from.
    """
    settings = {**settings, "pictures": number}
    kept = load_kept(path, settings)
    if kept is not None:
        return Examples(kept["latents"].float(), kept["tokens"].long(), kept["empty"].long())
    latents: list[torch.Tensor] = []
    captions: list[str] = []
    for start in range(0, number, _PART):
        random = np.random.default_rng([seed, start])
        scenes = [random_scene(random) for _ in range(min(_PART, number - start))]
        captions += [scene.caption for scene in scenes]
        encoded = vae.encode(to_tensor([draw(scene, random) for scene in scenes])).latent_dist.mean
        latents.append((encoded * vae.config.scaling_factor).half())
        report(f"{len(captions):,} of {number:,} pictures", len(captions) / number)
    ids = {caption: tokens_of(tokenizer, caption) for caption in {"", *captions}}
    kept = {
        "latents": torch.cat(latents),
        "tokens": torch.stack([ids[caption] for caption in captions]).int(),
        "empty": ids[""].int(),
    }
    keep(path, settings, kept)
    return Examples(kept["latents"].float(), kept["tokens"].long(), kept["empty"].long())


def tokens_of(tokenizer: PreTrainedTokenizerBase, caption: str) -> torch.Tensor:
    """The caption's token ids, padded to the tokenizer's length as pipelines of diffusers pad."""
    ids: torch.Tensor = tokenizer(
        caption, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids[0]
