"""A seed means what it means in diffusers with a generator on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from wgtune.build.format.sampler_tables import SamplerRun
from wgtune.build.runtime.torch_noise import MAX_SEED, generated_noise, run_noise, seeded_noise
from wgtune.support.errors import UsageError


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**53 + 1, MAX_SEED])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("latent", [(4, 8, 6), (1, 3, 3), (4, 3, 5)])
def test_seeds(seed: int, draws: int, latent: tuple[int, int, int]) -> None:
    generator = torch.Generator("cpu").manual_seed(seed)
    expected = [randn_tensor((1, *latent), generator=generator).numpy() for _ in range(draws)]
    assert np.array_equal(seeded_noise(drawing(draws), seed, latent), np.stack(expected))


def drawing(draws: int, brownian: bool = False) -> SamplerRun:
    """A run of five calls, of which every other row draws."""
    drawn = np.array([True, False] * 3)
    drawn[2 * draws :] = False
    intervals = np.float32([[14, 0.5], [0, 0], [14, 9], [0, 0], [9, 0.25], [0, 0]]) if brownian else None
    return SamplerRun(np.zeros(5, np.float32), drawn, np.zeros((6, 1, 3), np.float32), intervals)


def motion(seed: int | list[int], shape: tuple[int, ...]) -> list[np.ndarray]:
    """What diffusers' own sampler of Brownian noise gives for the rows that `drawing` draws."""
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    sampler = BrownianTreeNoiseSampler(torch.zeros(shape), 0.5, 14.0, seed)
    return [sampler(torch.tensor(a), torch.tensor(b)).numpy() for a, b in ((14.0, 9.0), (9.0, 0.25))]


@pytest.mark.filterwarnings("ignore:Should have")
def test_noise_of_a_brownian_motion() -> None:
    run, latent = drawing(3, brownian=True), (4, 3, 5)
    one = torch.Generator("cpu").manual_seed(9)
    got = run_noise(run, one, 2, latent)
    assert np.array_equal(got[0], torch.randn(2, *latent, generator=torch.Generator().manual_seed(9)).numpy())
    # By default the seed of the motion is that of the picture.
    assert all(np.array_equal(a, b) for a, b in zip(got[1:], motion(9, (2, *latent)), strict=True))
    got = run_noise(run, one, 2, latent, noise_seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(got[1:], motion(4, (2, *latent)), strict=True))
    got = run_noise(run, [torch.Generator().manual_seed(seed) for seed in (3, 8)], 2, latent)
    assert all(np.array_equal(a, b) for a, b in zip(got[1:], motion([3, 8], (2, *latent)), strict=True))
    torch.manual_seed(6)
    got = run_noise(run, None, 1, latent)
    torch.manual_seed(6)
    torch.randn(1, *latent)
    expected = motion(int(torch.randint(0, 2**63 - 1, []).item()), (1, *latent))
    assert all(np.array_equal(a, b) for a, b in zip(got[1:], expected, strict=True))


def test_a_list_has_one_generator_for_each_image() -> None:
    def generators() -> list[torch.Generator]:
        return [torch.Generator("cpu").manual_seed(s) for s in (3, 1, 2)]

    expected = randn_tensor((3, 4, 8, 8), generator=generators())
    assert np.array_equal(generated_noise(generators(), 3, (4, 8, 8)), expected.numpy())
    alone = randn_tensor((3, 4, 8, 8), generator=generators()[:1])
    assert np.array_equal(generated_noise(generators()[:1], 3, (4, 8, 8)), alone.numpy())
    with pytest.raises(UsageError, match="3 generators for 2 images"):
        generated_noise(generators(), 2, (4, 8, 8))


def test_without_a_generator_torchs_own_is_used() -> None:
    torch.manual_seed(5)
    expected = torch.randn(1, 4, 8, 8)
    torch.manual_seed(5)
    assert np.array_equal(generated_noise(None, 1, (4, 8, 8)), expected.numpy())


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_that_torch_does_not_take(seed: int) -> None:
    with pytest.raises(UsageError, match="no seed"):
        seeded_noise(drawing(1), seed, (4, 8, 8))
