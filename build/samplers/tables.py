"""The runs of all samplers of a bundle, and runs with a caller's own schedule."""

from __future__ import annotations

import copy
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...support.errors import BundleError, first_line
from ..format.sampler_tables import (
    AnySampler,
    Sampler,
    SamplerRun,
    SamplerTable,
    SamplerVariant,
    format_ranges,
)
from .recurrence import find_recurrence
from .schedulers import SamplerError, model_scheduler, own_sampler, sampler_label, sampler_scheduler, scheduler_settings
from .tracing import trace_run

_FAULTS = (ArithmeticError, LookupError, NotImplementedError, RuntimeError, ValueError, TypeError)
"""What diffusers' schedulers raise for settings and schedules that they cannot do."""


def sampler_run(
    scheduler: Any,
    steps: int,
    *,
    timesteps: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    eta: float = 0.0,
) -> SamplerRun:
    """Compute a run of a new diffusers scheduler, whose state is overwritten.

    Args:
        scheduler: the scheduler.
        steps: the number of inference steps, where its own schedule is used.
        timesteps: the caller's own schedule.
        sigmas: the caller's own noise levels.
        eta: the share of noise that DDIM adds; other schedulers do not know it.

    Raises:
        SamplerError: the scheduler is none that a bundle can follow, or refuses the schedule.
    """
    name = type(scheduler).__name__
    own: dict[str, Any] = {"timesteps": timesteps, "sigmas": sigmas}
    chosen = {key: list(value) for key, value in own.items() if value is not None}
    for key in chosen:
        if key not in inspect.signature(scheduler.set_timesteps).parameters:
            takers = [s.value for s in Sampler if _takes(s, key)]
            raise SamplerError(f"{name} takes no {key}", f"these samplers do: {', '.join(takers)}")
    schedule: dict[str, Any] = {**chosen} or {"num_inference_steps": steps}
    with _quiet():
        try:
            trace = trace_run(scheduler, lambda one: one.set_timesteps(**schedule), {"eta": eta})
        except _FAULTS as error:
            what = f"these {next(iter(chosen))}" if chosen else f"{steps} step{'s' * (steps != 1)}"
            raise SamplerError(
                f"{name} of the installed diffusers cannot make {what} with its settings ({_told_settings(scheduler)})",
                "choose others, or another sampler",
            ) from error
    return find_recurrence(trace)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what diffusers says of settings that it changes by itself, which are the same in its own pipelines."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def _takes(sampler: Sampler, argument: str) -> bool:
    cls = getattr(importlib.import_module("diffusers"), sampler.class_name)
    return argument in inspect.signature(cls.set_timesteps).parameters


def _told_settings(scheduler: Any) -> str:
    """Return the settings that decide which schedules ``scheduler`` can make, for a message."""
    settings = scheduler_settings(scheduler)
    asked = ("timestep_spacing", "prediction_type", "num_train_timesteps", "rescale_betas_zero_snr", "skip_prk_steps")
    kinds = [key for key in settings if key.startswith("use_") and settings[key] is True]
    return ", ".join(f"{key} = {settings[key]!r}" for key in (*asked, *kinds) if key in settings)


def make_table(base: Any, sampler: AnySampler, steps: Iterable[int]) -> SamplerTable:
    """Compute the runs of ``sampler``, configured as ``base``, for each of ``steps``; note those that it refuses."""
    try:
        with _quiet():
            scheduler = sampler_scheduler(base, sampler)
    except _FAULTS as error:
        why = f"{sampler.class_name} of the installed diffusers refuses the settings of the model: {first_line(error)}"
        return SamplerTable(sampler, sampler.label, refused=dict.fromkeys(steps, why))
    table = SamplerTable(sampler, sampler_label(sampler, scheduler))
    for count in steps:
        try:
            # A new one: diffusers schedulers keep state from one run to the next.
            table.runs[count] = sampler_run(copy.deepcopy(scheduler), count)
        except SamplerError as error:
            table.refused[count] = error.message
    return table


def _is_plain(base: Any, variant: SamplerVariant) -> bool:
    with _quiet():
        both = [scheduler_settings(sampler_scheduler(base, one)) for one in (variant, variant.sampler)]
    return both[0] == both[1]


def make_tables(
    config: Mapping[str, Any],
    samplers: Sequence[AnySampler],
    max_steps: int,
    warn: Callable[[str], None],
) -> tuple[AnySampler, dict[AnySampler, SamplerTable]]:
    """The default sampler and the tables of a model with this scheduler configuration, for 1 to ``max_steps`` steps.

    A variant that is the same as its sampler, because the model's configuration has such noise levels, is no table of
    its own. What is left out is told through ``warn``. Raises BundleError when nothing is left.
    """
    base = model_scheduler(config)
    tables: dict[AnySampler, SamplerTable] = {}
    for sampler in samplers:
        if isinstance(sampler, SamplerVariant) and sampler.sampler in samplers and _is_plain(base, sampler):
            continue
        table = make_table(base, sampler, range(1, max_steps + 1))
        if table.refused:
            reason = next(iter(table.refused.values()))
            warn(f"{table.label}: left out the runs of {format_ranges(sorted(table.refused))} steps: {reason}")
        if table.runs:
            tables[sampler] = table
    if not tables:
        raise BundleError(
            "no scheduler can be turned into a table for this model",
            "the model's scheduler_config.json asks for clipping or thresholding in every sampler chosen",
        )
    own: AnySampler | None = own_sampler(base)
    if own is None or own not in tables:
        own = Sampler.EULER if Sampler.EULER in tables else next(iter(tables))
        warn(f"the model's own scheduler {type(base).__name__} is not in the bundle; the default is {own.class_name}")
    return own, tables
