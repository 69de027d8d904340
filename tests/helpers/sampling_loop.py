"""diffusers' sampling loop over made-up model outputs, and a recurrence over the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from wgtune.build.format.sampler_tables import SamplerRun
from wgtune.build.runtime.torch_noise import run_noise

SHAPE = (1, 4, 6, 6)

SD15: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""The scheduler's configuration of Stable Diffusion 1.5."""

NOISE_SEED = 2**40 + 5
"""Seed of the Brownian motion that one of the samplers draws from."""


def model(latent: torch.Tensor, call: int) -> torch.Tensor:
    """A made-up model that finds some of the noise in the latent, so that latents shrink as real ones do."""
    return 0.8 * torch.tanh(latent) + 0.3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(call))


def diffusers_run(
    scheduler: Any, prepare: Callable[[Any], None], **options: Any
) -> tuple[list[torch.Tensor], list[float]]:
    """What diffusers' pipeline does with ``scheduler`` in float32: the inputs of all calls, then the final latent."""
    import inspect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare(scheduler)
        taken = inspect.signature(scheduler.step).parameters
        generator = torch.Generator().manual_seed(1)
        # As the pipeline does, which has no noise in DDIM's steps.
        options = {"eta": 0.0, **options, "generator": generator}
        options = {name: value for name, value in options.items() if name in taken}
        latent = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
        seen = []
        for call, timestep in enumerate(scheduler.timesteps):
            seen.append(scheduler.scale_model_input(latent, timestep))
            latent = scheduler.step(model(seen[-1], call), timestep, latent, **options, return_dict=False)[0]
        return [*seen, latent], scheduler.timesteps.double().tolist()


def recurrence_run(run: SamplerRun) -> list[np.ndarray]:
    """The same by the recurrence, in float32."""
    noise = iter(run_noise(run, torch.Generator().manual_seed(1), SHAPE[0], SHAPE[1:], NOISE_SEED))
    slots = np.full((2 + run.states, *SHAPE), np.nan, np.float32)
    seen = []
    for row in range(run.calls + 1):
        if run.draws[row]:
            slots[0] = next(noise)
        if row:
            slots[1] = model(torch.from_numpy(seen[-1]), row - 1).numpy()
        used = np.where(np.isnan(slots), 0, slots) if row == 0 else slots
        slots[2:] = np.tensordot(run.rows[row], used, 1).astype(np.float32)
        seen.append(slots[2].copy())
    return seen
