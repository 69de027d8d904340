"""The noise that diffusers draws for a seed with a generator on the CPU: initial latents, and that of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...support.errors import UsageError

if TYPE_CHECKING:
    import torch

    from ..format.sampler_tables import SamplerRun

MAX_SEED = (1 << 64) - 1
"""The largest seed that torch takes."""


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that torch refuses."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"{seed} is no seed", f"choose 0 to {MAX_SEED}")


def run_noise(
    run: SamplerRun,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    count: int,
    latent: tuple[int, int, int],
    noise_seed: int | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return all that ``count`` pictures draw in ``run``: float32 [draws, count, channels, height, width].

    Args:
        run: tells what each row draws.
        generator: as for `generated_noise`, which draws the numbers of a stream.
        count: the number of pictures.
        latent: channels, height and width.
        noise_seed: the seed of a Brownian motion; by default that of each generator, or one that torch's global
            generator draws, as in diffusers.
        start: what row 0 draws, which is then not drawn.

    Raises:
        UsageError: as `generated_noise`.
    """
    drawn = [generated_noise(generator, count, latent) if start is None else start]
    rows = np.flatnonzero(run.draws)[1:]
    if run.intervals is None:
        drawn += [generated_noise(generator, count, latent) for _ in rows]
    else:
        drawn += _brownian_noise(run.intervals, rows, _entropy(generator, noise_seed), (count, *latent))
    return np.stack(drawn)


def _entropy(generator: torch.Generator | Sequence[torch.Generator] | None, noise_seed: int | None) -> int | list[int]:
    """Return the seed of one Brownian motion for all pictures, or of one for each."""
    import torch

    if noise_seed is not None:
        return noise_seed
    if generator is None:
        return int(torch.randint(0, 2**63 - 1, []).item())
    if isinstance(generator, Sequence):
        return generator[0].initial_seed() if len(generator) == 1 else [one.initial_seed() for one in generator]
    return generator.initial_seed()


def _brownian_noise(
    intervals: np.ndarray, rows: np.ndarray, entropy: int | list[int], shape: tuple[int, ...]
) -> list[np.ndarray]:
    """Return the increments that ``rows`` draw, scaled to unit variance, as diffusers' noise sampler gives them."""
    import torch
    from torchsde import BrownianInterval

    first, last = sorted(float(time) for time in intervals[0])
    one = isinstance(entropy, int)
    motions = [
        BrownianInterval(
            first, last, shape if one else shape[1:], entropy=seed, tol=1e-6, pool_size=24, halfway_tree=True
        )
        for seed in ([entropy] if isinstance(entropy, int) else entropy)
    ]
    found = []
    for row in rows:
        later, earlier = (min(max(float(time), first), last) for time in intervals[row])
        increments = [motion(earlier, later) for motion in motions]
        whole = increments[0] if one else torch.stack(increments)
        width = float(intervals[row, 0] - intervals[row, 1])
        found.append((-whole / width**0.5).to(torch.float32).numpy())
    return found


def seeded_noise(run: SamplerRun, seed: int, latent: tuple[int, int, int], noise_seed: int | None = None) -> np.ndarray:
    """Return `run_noise` of one picture with this seed; UsageError for one that torch refuses."""
    import torch

    check_seed(seed)
    return run_noise(run, torch.Generator("cpu").manual_seed(seed), 1, latent, noise_seed)


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
