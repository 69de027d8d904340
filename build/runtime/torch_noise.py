"""The noise that diffusers draws for a seed with a generator on the CPU: initial latents, and that of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...support.errors import UsageError

if TYPE_CHECKING:
    import torch

MAX_SEED = (1 << 64) - 1
"""The largest seed that torch takes."""


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that torch refuses."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"{seed} is no seed", f"choose 0 to {MAX_SEED}")


def seeded_noise(seed: int, draws: int, latent: tuple[int, int, int]) -> np.ndarray:
    """Return what one picture draws, one after another: float32 [draws, 1, channels, height, width] of unit variance.

    Raises UsageError for a seed that torch refuses.
    """
    import torch

    check_seed(seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    return np.stack([generated_noise(generator, 1, latent) for _ in range(draws)])


def generated_noise(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int, latent: tuple[int, int, int]
) -> np.ndarray:
    """Return float32 [count, channels, height, width] as diffusers' ``randn_tensor`` draws it next.

    One generator (None for torch's global one) draws all latents at once; a list has one for each.

    Raises:
        UsageError: the list has another length, or a generator is on a GPU, which draws other numbers.
    """
    import torch

    if isinstance(generator, Sequence):
        if len(generator) == 1:
            return generated_noise(generator[0], count, latent)
        if len(generator) != count:
            raise UsageError(
                f"there are {len(generator)} generators for {count} images", "give one for each, or one alone"
            )
        return np.concatenate([generated_noise(one, 1, latent) for one in generator])
    if generator is not None and generator.device.type != "cpu":
        raise UsageError(
            f"the generator lives on {generator.device}, whose random numbers cannot be made here",
            'use torch.Generator("cpu")',
        )
    return torch.randn((count, *latent), generator=generator, dtype=torch.float32).numpy()
