"""A bundle's sampling runs: from its tables, or from diffusers' schedulers where no table holds them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ...support.errors import UsageError
from ..format.reader import Bundle
from ..format.sampler_tables import AnySampler, SamplerRun
from ..samplers.schedulers import model_scheduler, own_sampler, sampler_scheduler
from ..samplers.tables import sampler_run


def bundle_scheduler(bundle: Bundle, sampler: AnySampler) -> Any:
    """Return ``sampler``'s diffusers scheduler with the settings of the bundle's model."""
    base = model_scheduler(bundle.manifest.schedulers.config)
    return base if own_sampler(base) is sampler else sampler_scheduler(base, sampler)


def noise_seed_of(config: Mapping[str, Any]) -> int | None:
    """Return the seed of a Brownian motion that a scheduler's configuration names; None for the picture's own."""
    seed = config.get("noise_sampler_seed")
    return seed if isinstance(seed, int) else None


def named_run(bundle: Bundle, sampler: AnySampler, steps: int) -> SamplerRun:
    """Return ``sampler``'s run of ``steps`` inference steps: the bundle's, or one that is computed now.

    Raises:
        UsageError: the number of steps is not positive.
        SamplerError: the sampler does not offer so many steps for this model.
    """
    if steps < 1:
        raise UsageError(f"there is no picture of {steps} steps", "20 to 50 are usual")
    table = bundle.manifest.schedulers.tables.get(sampler.value)
    if table is not None and steps in table.runs:
        return bundle.run(sampler, steps)
    return sampler_run(bundle_scheduler(bundle, sampler), steps)


def scheduler_run(
    scheduler: Any,
    steps: int,
    timesteps: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    eta: float = 0.0,
) -> SamplerRun:
    """Return the run of a diffusers scheduler, which stays as it is; arguments as for diffusers' pipelines.

    Raises:
        UsageError: there are both timesteps and sigmas, or no steps.
        SamplerError: the scheduler takes none of its caller, or refuses these.
    """
    if timesteps is not None and sigmas is not None:
        raise UsageError("there are both timesteps and sigmas", "give one of them")
    if timesteps is None and sigmas is None and steps < 1:
        raise UsageError(f"there is no picture of {steps} steps", "20 to 50 are usual")
    return sampler_run(copy.deepcopy(scheduler), steps, timesteps=timesteps, sigmas=sigmas, eta=eta)
