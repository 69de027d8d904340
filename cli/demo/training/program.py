"""The whole training: autoencoder, training set, denoiser with text encoder, the model's files, and their score."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ....support.console import Report
from ..model import make_networks, write_clip_tokenizer
from ..trained import SCHEDULER, make_trained_pipeline, write_trained
from .autoencoder import scale_latents, train_autoencoder
from .denoiser import train_denoiser
from .evaluation import Score, score
from .examples import Examples, make_examples

ProgressBar = Callable[[str], AbstractContextManager[Report]]
"""Shows the progress of a part of the training, by its title."""


@dataclass(frozen=True)
class Lengths:
    """How long to train: steps of both parts, pictures of the training set, and captions of the score."""

    autoencoder_steps: int = 3000
    pictures: int = 24_000
    denoiser_steps: int = 24_000
    captions: int = 40


def train_demo_model(output: Path, work: Path, seed: int, lengths: Lengths, progress: ProgressBar) -> Score:
    """Train from nothing and write the weights to ``output``; what ``work`` holds of such a run is not done again.

    The same seed, lengths, number of threads and version of PyTorch give the same weights.
    """
    from diffusers import DDPMScheduler
    from transformers import CLIPTokenizer

    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    text_encoder, unet, vae = make_networks()
    with progress("Autoencoder") as report:
        train_autoencoder(vae, lengths.autoencoder_steps, seed, work / "autoencoder.pt", report)
    scale_latents(vae, seed)
    settings = {"seed": seed, "autoencoder_steps": lengths.autoencoder_steps}
    write_clip_tokenizer(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    with progress("Training set") as report:
        examples = make_examples(vae, tokenizer, lengths.pictures, seed, settings, work / "examples.pt", report)
    settings["pictures"] = lengths.pictures
    scheduler = DDPMScheduler.from_config(SCHEDULER)
    with progress("Denoiser and text encoder") as report:
        path, steps = work / "denoiser.pt", lengths.denoiser_steps
        train_denoiser(unet, text_encoder, examples, scheduler, steps, seed, settings, path, report)
    clear_unused_words(text_encoder, examples)
    write_trained(output, text_encoder, unet, vae)
    with progress("Score") as report, tempfile.TemporaryDirectory() as folder:
        report(f"{lengths.captions} held-out captions", 0.0)
        return score(make_trained_pipeline(Path(folder), output), lengths.captions)


def clear_unused_words(text_encoder: Any, examples: Examples) -> None:
    """Set the rows of all words that no caption has to zero: they were never trained, and packages shrink by them."""
    used = torch.unique(torch.cat([examples.tokens.flatten(), examples.empty]))
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        kept = table[used].clone()
        table.zero_()
        table[used] = kept
