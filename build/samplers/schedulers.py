"""The diffusers scheduler of a model's configuration, as ``StableDiffusionPipeline`` would hold it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from ...support.errors import BundleError
from ..format.sampler_tables import AnySampler, NoiseLevels, Sampler, SamplerVariant, class_sampler

_SETTINGS = {
    Sampler.DPMPP_2S: {"algorithm_type": "dpmsolver++"},
    Sampler.DPMPP_2M: {"algorithm_type": "dpmsolver++"},
    Sampler.DPMPP_2M_SDE: {"algorithm_type": "sde-dpmsolver++"},
    Sampler.DEIS: {"algorithm_type": "deis"},
    Sampler.SA_SOLVER: {"algorithm_type": "data_prediction"},
}
"""A setting of this name means something else for each of these classes, so it does not carry over."""


class SamplerError(BundleError):
    """A scheduler does what no bundle can follow: it clips, adapts to what it sees, or refuses the timesteps."""


def model_scheduler(config: Mapping[str, Any]) -> Any:
    """Return the diffusers scheduler that ``StableDiffusionPipeline`` makes of this ``scheduler_config.json``.

    Raises:
        BundleError: diffusers has no such class, or it is not compatible with any `Sampler`, as flow matching is not.
    """
    name = str(config.get("_class_name", ""))
    cls = getattr(importlib.import_module("diffusers"), name, None)
    if not name.endswith("Scheduler") or cls is None or not hasattr(cls, "_compatibles"):
        raise BundleError(f"the model's scheduler {name!r} is not in the installed diffusers", "upgrade diffusers")
    known = {sampler.class_name for sampler in Sampler}
    names = {c if isinstance(c, str) else c.__name__ for c in cls._compatibles}
    if name not in known and not names & known:
        raise BundleError(
            f"the model's scheduler {name} has no sampler in common with a bundle",
            f"a bundle draws with {', '.join(sorted(known))}, and with models whose configuration those accept",
        )
    return _as_pipeline_holds(cls.from_config(dict(config)))


def own_sampler(scheduler: Any) -> Sampler | None:
    """Return the sampler that a diffusers scheduler is; None for a class that a bundle does not know."""
    found = class_sampler(type(scheduler).__name__)
    stochastic = str(scheduler.config.get("algorithm_type")).startswith("sde-")
    return Sampler.DPMPP_2M_SDE if found is Sampler.DPMPP_2M and stochastic else found


def sampler_scheduler(base: Any, sampler: AnySampler) -> Any:
    """Return ``sampler``'s diffusers scheduler with the configuration of ``base``, such as its prediction type.

    Raises SamplerError where the sampler cannot have the noise levels of a variant.
    """
    cls = getattr(importlib.import_module("diffusers"), sampler.class_name)
    plain = sampler.sampler if isinstance(sampler, SamplerVariant) else sampler
    changes: dict[str, Any] = {} if own_sampler(base) is plain else dict(_SETTINGS.get(plain, {}))
    if isinstance(sampler, SamplerVariant):
        if not _has_levels(plain, sampler.levels):
            able = ", ".join(one.value for one in Sampler if _has_levels(one, sampler.levels))
            raise SamplerError(f"{plain.label} has no {sampler.levels.label} noise levels", f"these have: {able}")
        changes |= {one.setting: one is sampler.levels for one in NoiseLevels if _has_levels(plain, one)}
    return _as_pipeline_holds(cls.from_config(base.config, **changes))


def _has_levels(sampler: Sampler, levels: NoiseLevels) -> bool:
    cls = getattr(importlib.import_module("diffusers"), sampler.class_name)
    return levels.setting in inspect.signature(cls.__init__).parameters


def _as_pipeline_holds(scheduler: Any) -> Any:
    """Correct the two outdated settings that the constructor of diffusers' ``StableDiffusionPipeline`` corrects."""
    from diffusers.configuration_utils import FrozenDict

    mended = dict(scheduler.config)
    if mended.get("steps_offset", 1) != 1:
        mended["steps_offset"] = 1
    if mended.get("clip_sample") is True:
        mended["clip_sample"] = False
    scheduler._internal_dict = FrozenDict(mended)
    return scheduler


def scheduler_settings(scheduler: Any) -> dict[str, Any]:
    """Return the settings that shape a diffusers scheduler's runs: the parameters of its own class."""
    names = set(inspect.signature(type(scheduler).__init__).parameters) - {"self", "kwargs"}
    return {name: scheduler.config[name] for name in sorted(names & set(scheduler.config))}


def sampler_label(sampler: AnySampler, scheduler: Any) -> str:
    """Return the name that people know ``scheduler``, one of ``sampler``, by: with its kind of noise levels."""
    plain = sampler.sampler if isinstance(sampler, SamplerVariant) else sampler
    settings = scheduler_settings(scheduler)
    levels = next((one for one in NoiseLevels if settings.get(one.setting)), None)
    return plain.label if levels is None else SamplerVariant(plain, levels).label


def check_linear(scheduler: Any) -> None:
    """Raise SamplerError where the settings of ``scheduler`` make its steps depend on the size of what they see."""
    name = type(scheduler).__name__
    for setting, what in (
        ("thresholding", "limits each picture's predicted latents by a quantile of their own (thresholding)"),
        ("clip_sample", "cuts predicted latents off (clip_sample), which suits pixels and spoils latents"),
    ):
        if scheduler_settings(scheduler).get(setting):
            raise SamplerError(
                f"{name} {what}, which no bundle does",
                f"{name}.from_config(pipe.scheduler.config, {setting}=False)",
            )
