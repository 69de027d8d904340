"""Trains the denoiser and the text encoder together, on latents of drawn scenes and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ....support.console import Report
from .autoencoder import rate_at
from .checkpoints import Run, Settings
from .examples import Examples

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

BATCH = 32
RATE = 2e-3
UNCONDITIONED = 0.1
"""Share of examples without a caption, for classifier-free guidance."""
_DECAY = 0.999
_WARM_UP = 200


class Average:
    """The moving average of the networks' weights, which is what the model is in the end."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._networks = list(networks)
        self._weights = [p.detach().clone() for network in networks for p in network.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the networks' weights, faster during the first steps."""
        decay = min(_DECAY, (1 + step) / (10 + step))
        weights: list[torch.Tensor] = [p for network in self._networks for p in network.parameters()]
        torch._foreach_lerp_(self._weights, weights, 1 - decay)

    @torch.no_grad()
    def copy_to(self, networks: Sequence[nn.Module]) -> None:
        """Give networks of the same kind the averaged weights."""
        targets = [p for network in networks for p in network.parameters()]
        for target, weight in zip(targets, self._weights, strict=True):
            target.copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by their position."""
        return {str(index): weight for index, weight in enumerate(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the weights of an earlier ``state_dict``."""
        for index, weight in enumerate(self._weights):
            weight.copy_(state[str(index)])


def train_denoiser(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    examples: Examples,
    scheduler: Any,
    steps: int,
    seed: int,
    settings: Settings,
    checkpoint: Path,
    report: Report,
) -> None:
    """Train both networks in place; goes on from ``checkpoint`` where it exists.

    ``scheduler`` is a DDPMScheduler of the pipeline's noise, and says whether noise or velocity is predicted. As an
    error of the picture, the squared error has the weight min(SNR + 1, 5), after Hang et al. 2023, "Efficient Diffusion
    Training via Min-SNR Weighting Strategy"; as one of the noise, at most 25, where hardly anything is left but noise.
    """
    networks = (unet, text_encoder)
    parameters = [p for network in networks for p in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    average = Average(networks)
    state = {"unet": unet, "text_encoder": text_encoder, "optimizer": optimizer, "average": average}
    run = Run(checkpoint, {**settings, "denoiser_steps": steps}, steps, state, report)
    smooth = 1.0
    for step in range(run.resume(), steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_at(step, steps, _WARM_UP)
        loss = denoising_loss(
            unet, text_encoder, examples, scheduler, torch.Generator().manual_seed(seed * 1_000_003 + step)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
        smooth += max(0.02, 1 / (step + 1)) * (float(loss.detach()) - smooth)
        run.step_done(step + 1, smooth)
    average.copy_to(networks)


def denoising_loss(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    examples: Examples,
    scheduler: Any,
    generator: torch.Generator,
    batch: int = BATCH,
) -> torch.Tensor:
    """The weighted squared error over a random batch of examples, noises and times."""
    chosen = torch.randint(len(examples.latents), (batch,), generator=generator)
    clean, tokens = examples.latents[chosen], examples.tokens[chosen]
    without = torch.rand(batch, generator=generator) < UNCONDITIONED
    tokens = torch.where(without[:, None], examples.empty, tokens)
    noise = torch.randn(clean.shape, generator=generator)
    # One time in each of equal parts of the range: a batch's loss depends less on which times it drew.
    total = scheduler.config.num_train_timesteps
    times = ((torch.arange(batch) + torch.rand(batch, generator=generator)) * total / batch).long()
    known = scheduler.alphas_cumprod[times]
    ratio = known / (1 - known)
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(clean, noise, times)
        weight = (ratio + 1).clamp(max=5) / (ratio + 1)
    else:
        target = noise
        weight = ((ratio + 1).clamp(max=5) / ratio).clamp(max=25)
    predicted = unet(scheduler.add_noise(clean, noise, times), times, text_encoder(tokens).last_hidden_state).sample
    return ((predicted - target).square().mean(dim=(1, 2, 3)) * weight).mean()
