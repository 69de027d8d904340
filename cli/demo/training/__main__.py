"""`python -m wgtune.cli.demo.training`: train the demo model anew and write its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from ....support.console import progress, stdout
from ..trained import TRAINED
from .evaluation import GUIDANCE, STEPS
from .program import Lengths, train_demo_model

_WORK = Path(".cache", "demo-model")


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the weights.")] = TRAINED,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints; an interrupted run goes on from them.")] = _WORK,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")] = 2,
    autoencoder_steps: Annotated[int, typer.Option(min=1)] = Lengths.autoencoder_steps,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures in the training set.")] = Lengths.pictures,
    denoiser_steps: Annotated[int, typer.Option(min=1)] = Lengths.denoiser_steps,
    captions: Annotated[int, typer.Option(min=1, help="Held-out captions to draw in the end.")] = Lengths.captions,
) -> None:
    """Train the demo model from nothing, on pictures that a program draws."""
    torch.set_num_threads(threads)
    lengths = Lengths(autoencoder_steps, pictures, denoiser_steps, captions)
    score = train_demo_model(output, work, seed, lengths, progress)
    out = stdout()
    for caption, wrong in score.wrong.items():
        out.print(f"“{caption}”: {', '.join(wrong)}", soft_wrap=True, highlight=False)
    right = score.drawn - len(score.wrong)
    out.print(f"{right} of {score.drawn} held-out captions right at {STEPS} steps, guidance {GUIDANCE:g}: {output}")


if __name__ == "__main__":
    typer.run(main)
