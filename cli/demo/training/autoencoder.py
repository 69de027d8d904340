"""Trains the autoencoder: pictures of scenes to latents and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ....support.console import Report
from ..scenes import SIZE, draw, random_scene
from .checkpoints import Run

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

WHOLE = 0.2
"""Share of the steps on whole pictures; those before are on parts around an object, which hold more to learn."""
BATCH = 8
_PART = 64
_PARTS = 24
"""Width and height of such a part in pixels, and parts in a step."""
RATE = 2e-3
DIVERGENCE = 1e-3
"""Weight of the mean Kullback-Leibler divergence beside the mean absolute error of a picture of −1 to 1."""
_WARM_UP = 100


def pictures(seed: int, step: int, number: int) -> torch.Tensor:
    """Draw the training pictures of a step: (number, 3, SIZE, SIZE), −1 to 1."""
    random = np.random.default_rng([seed, step])
    return to_tensor([draw(random_scene(random), random) for _ in range(number)])


def parts(seed: int, step: int, number: int) -> torch.Tensor:
    """Draw the training pictures of a step, and cut a part around an object out of each, as ``pictures`` does."""
    random = np.random.default_rng([seed, step])
    cut = []
    for _ in range(number):
        scene = random_scene(random)
        centres = [centre for group in scene.groups for centre in group.centres]
        middle = np.array(centres[random.integers(len(centres))]) + random.uniform(-_PART / 4, _PART / 4, 2)
        left, top = (middle - _PART / 2).clip(0, SIZE - _PART).astype(int)
        cut.append(draw(scene, random)[top : top + _PART, left : left + _PART])
    return to_tensor(cut)


def to_tensor(drawn: list[np.ndarray]) -> torch.Tensor:
    """Stack pictures of 0 to 255 as (number, 3, height, width), −1 to 1."""
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1


def rate_at(step: int, steps: int, warm_up: int) -> float:
    """The learning rate's share of its maximum: rises, then falls as half a cosine to 2 %.

    It rises over ``warm_up`` steps, or a tenth of all where that is fewer.
    """
    warm_up = min(warm_up, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def train_autoencoder(vae: AutoencoderKL, steps: int, seed: int, checkpoint: Path, report: Report) -> None:
    """Train ``vae`` in place, and scale its latents to unit size; goes on from ``checkpoint`` where it exists."""
    optimizer = torch.optim.Adam(vae.parameters(), lr=RATE, betas=(0.9, 0.99))
    settings = {"seed": seed, "autoencoder_steps": steps}
    run = Run(checkpoint, settings, steps, {"vae": vae, "optimizer": optimizer}, report)
    vae.train()
    for step in range(run.resume(), steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_at(step, steps, _WARM_UP)
        batch = parts(seed, step, _PARTS) if step < (1 - WHOLE) * steps else pictures(seed, step, BATCH)
        posterior = vae.encode(batch).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
        restored = vae.decode(posterior.mean + posterior.std * noise).sample
        error = (restored - batch).abs().mean() + (restored - batch).square().mean()
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = error + DIVERGENCE * divergence
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        run.step_done(step + 1, float(error.detach()))
    vae.eval()


@torch.no_grad()
def scale_latents(vae: AutoencoderKL, seed: int, number: int = 256) -> None:
    """Give latents mean 0 and standard deviation 1 in each channel once multiplied by the configured factor.

    The 1 × 1 convolutions beside the latents take the change, so that the networks compute the same pictures.
    """
    means = torch.cat([vae.encode(pictures(seed + 1, part, 32)).latent_dist.mean for part in range(number // 32)])
    centre = means.mean(dim=(0, 2, 3))
    factor = 1 / (means.std(dim=(0, 2, 3)) * vae.config.scaling_factor)
    channels = len(centre)
    vae.quant_conv.weight[:channels] *= factor[:, None, None, None]
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - centre) * factor
    vae.quant_conv.bias[channels:] += 2 * factor.log()
    weight = vae.post_quant_conv.weight
    vae.post_quant_conv.bias += (weight[:, :, 0, 0] * centre).sum(dim=1)
    weight /= factor[None, :, None, None]
