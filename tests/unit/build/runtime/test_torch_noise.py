"""A seed means what it means in diffusers with a generator on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from wgtune.build.runtime.torch_noise import MAX_SEED, generated_noise, seeded_noise
from wgtune.support.errors import UsageError


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**53 + 1, MAX_SEED])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("latent", [(4, 8, 6), (1, 3, 3), (4, 3, 5)])
def test_seeds(seed: int, draws: int, latent: tuple[int, int, int]) -> None:
    generator = torch.Generator("cpu").manual_seed(seed)
    expected = [randn_tensor((1, *latent), generator=generator).numpy() for _ in range(draws)]
    assert np.array_equal(seeded_noise(seed, draws, latent), np.stack(expected))


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
        seeded_noise(seed, 1, (4, 8, 8))
