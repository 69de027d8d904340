"""Schedulers as tables: one row of coefficients per UNet call, computed with diffusers' own scheduler.

A deterministic sampler is linear in the first latent x and the model outputs e_0, e_1, … so far. So the sampling loop
is run once on unit vectors in place of latents, which gives the coefficients (docs/bundle.md, "Scheduler tables").
A few columns of random numbers are run with them: where the coefficients do not reproduce these, the sampler is not
linear.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from ...support.errors import BundleError
from .manifest import RunInfo

PROBES = 16
"""Number of random columns that check linearity."""

LINEAR_TOLERANCE = 1e-4
"""Largest difference between the coefficients applied to the probes and the probes' own run, relative to its largest
magnitude."""


class Sampler(str, Enum):
    """The samplers that a bundle can hold; the value is the name in manifests and on the command line."""

    DDIM = "ddim"
    EULER = "euler"
    PNDM = "pndm"
    DPM_SOLVER = "dpmsolver"

    @property
    def class_name(self) -> str:
        """Name of the diffusers class."""
        return _CLASS_NAMES[self]


_CLASS_NAMES = {
    Sampler.DDIM: "DDIMScheduler",
    Sampler.EULER: "EulerDiscreteScheduler",
    Sampler.PNDM: "PNDMScheduler",
    Sampler.DPM_SOLVER: "DPMSolverMultistepScheduler",
}


class NotLinearError(Exception):
    """The scheduler is not a fixed linear combination: it clips, adds noise of its own, or adapts."""


@dataclass(frozen=True, eq=False)
class SamplerRun:
    """One sampling run of C model calls.

    ``timesteps``: float32 [C], the UNet's inputs. ``rows``: float32 [C + 1, C + 1]; row i gives the input of call
    i and row C the final latent, as coefficients of (x, e_0, …, e_{C-1}).
    """

    timesteps: np.ndarray
    rows: np.ndarray

    @property
    def calls(self) -> int:
        """C, the number of UNet calls."""
        return len(self.timesteps)


@dataclass
class SamplerTable:
    """All runs of one sampler, by number of inference steps; ``refused`` says why a number of steps has none."""

    sampler: Sampler
    runs: dict[int, SamplerRun] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


def find_sampler(name: str) -> Sampler:
    """Return the sampler with this name or diffusers class name; BundleError lists the known ones."""
    for sampler in Sampler:
        if name in (sampler.value, sampler.class_name):
            return sampler
    known = ", ".join(s.value for s in Sampler)
    raise BundleError(f"there is no table-driven sampler {name!r}", f"known samplers: {known}")


def model_scheduler(config: Mapping[str, Any]) -> Any:
    """Return the diffusers scheduler that ``StableDiffusionPipeline`` makes of this ``scheduler_config.json``.

    Raises:
        BundleError: diffusers has no such class, or it is not compatible with any `Sampler`, as flow matching is not.
    """
    name = str(config.get("_class_name", ""))
    cls = getattr(importlib.import_module("diffusers"), name, None)
    if not name.endswith("Scheduler") or cls is None or not hasattr(cls, "_compatibles"):
        raise BundleError(f"the model's scheduler {name!r} is not in the installed diffusers", "upgrade diffusers")
    names = {c if isinstance(c, str) else c.__name__ for c in cls._compatibles}
    if name not in _CLASS_NAMES.values() and not names & set(_CLASS_NAMES.values()):
        raise BundleError(
            f"the model's scheduler {name} has no sampler in common with a bundle",
            f"a bundle draws with {', '.join(_CLASS_NAMES.values())}, and with models whose configuration those accept",
        )
    return _as_pipeline_holds(cls.from_config(dict(config)))


def sampler_scheduler(base: Any, sampler: Sampler) -> Any:
    """Return ``sampler``'s diffusers scheduler with the configuration of ``base``, such as its prediction type."""
    cls = getattr(importlib.import_module("diffusers"), sampler.class_name)
    return _as_pipeline_holds(cls.from_config(base.config))


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
    import inspect

    names = set(inspect.signature(type(scheduler).__init__).parameters) - {"self", "kwargs"}
    return {name: scheduler.config[name] for name in sorted(names & set(scheduler.config))}


def tabulate(scheduler: Any, steps: int) -> SamplerRun:
    """Compute the table of a run with ``steps`` inference steps.

    ``scheduler`` must be new: diffusers schedulers keep state from one run to the next.

    Raises:
        NotLinearError: the coefficients do not reproduce the probes.
        Exception: the scheduler's own error for a number of steps that it refuses.
    """
    import torch

    scheduler.set_timesteps(steps)
    calls = len(scheduler.timesteps)
    basis = torch.eye(calls + 1, dtype=torch.float64)
    probes = 3 * torch.randn(calls + 1, PROBES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.cat([basis, probes], dim=1)
    # Schedulers only look at the number of dimensions: batch, channels, height, width.
    values = values.reshape(calls + 1, 1, 1, 1, -1)
    latent = values[0] * scheduler.init_noise_sigma
    rows = []
    for call, timestep in enumerate(scheduler.timesteps):
        rows.append(scheduler.scale_model_input(latent, timestep))
        latent = scheduler.step(values[call + 1], timestep, latent).prev_sample
    rows.append(latent)
    table = torch.cat([row.reshape(1, -1).double() for row in rows])
    matrix, probed = table[:, : calls + 1], table[:, calls + 1 :]
    difference = float((matrix @ probes - probed).abs().max())
    if not difference <= LINEAR_TOLERANCE * max(1.0, float(probed.abs().max())):
        raise NotLinearError(f"it is not linear in its inputs (off by {difference:.1e})")
    # A UNet call depends on earlier outputs only; rounding may have left other values there.
    visible = np.tril(np.ones((calls + 1, calls + 1), dtype=bool))
    return SamplerRun(
        timesteps=scheduler.timesteps.double().numpy().astype(np.float32),
        rows=np.where(visible, matrix.numpy(), 0.0).astype(np.float32),
    )


def make_table(base: Any, sampler: Sampler, steps: Iterable[int]) -> SamplerTable:
    """Compute the runs of ``sampler``, configured as ``base``, for each of ``steps``; note those that it refuses."""
    table = SamplerTable(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for count in steps:
            try:
                table.runs[count] = tabulate(sampler_scheduler(base, sampler), count)
            except (NotLinearError, ValueError, IndexError, RuntimeError, NotImplementedError) as error:
                table.refused[count] = (str(error).splitlines() or [type(error).__name__])[0]
    return table


def make_tables(
    config: Mapping[str, Any],
    samplers: Iterable[Sampler],
    max_steps: int,
    warn: Callable[[str], None],
) -> tuple[Sampler, dict[Sampler, SamplerTable]]:
    """The default sampler and the tables of a model with this scheduler configuration, for 1 to ``max_steps`` steps.

    What is left out is told through ``warn``. Raises BundleError when nothing is left.
    """
    base = model_scheduler(config)
    tables: dict[Sampler, SamplerTable] = {}
    for sampler in samplers:
        table = make_table(base, sampler, range(1, max_steps + 1))
        if table.refused:
            reason = next(iter(table.refused.values()))
            warn(f"{sampler.class_name}: left out the runs of {format_ranges(sorted(table.refused))} steps: {reason}")
        if table.runs:
            tables[sampler] = table
    if not tables:
        raise BundleError(
            "no scheduler can be turned into a table for this model",
            "the model's scheduler_config.json asks for clipping, thresholding or noise in every sampler chosen",
        )
    own = next((s for s in tables if s.class_name == type(base).__name__), None)
    if own is None:
        own = Sampler.EULER if Sampler.EULER in tables else next(iter(tables))
        warn(f"the model's own scheduler {type(base).__name__} is not in the bundle; the default is {own.class_name}")
    return own, tables


def pack_table(table: SamplerTable) -> tuple[bytes, dict[int, RunInfo]]:
    """Return the bytes of the table's file, and where each run lies in it."""
    parts, places, position = [], {}, 0
    for steps, run in sorted(table.runs.items()):
        places[steps] = RunInfo(position, run.calls)
        parts += [run.timesteps, run.rows.reshape(-1)]
        position += run.timesteps.size + run.rows.size
    return np.concatenate(parts).astype("<f4").tobytes(), places


def unpack_run(data: np.ndarray, offset: int, calls: int) -> SamplerRun:
    """Return the run of ``calls`` UNet calls at float32 element ``offset`` of a table file.

    Raises:
        BundleError: the file ends before the run does.
    """
    size = calls + (calls + 1) ** 2
    if offset < 0 or calls < 1 or offset + size > data.size:
        raise BundleError(
            f"a scheduler table has {data.size} numbers where {offset + size} are needed", "build it again"
        )
    part = data[offset : offset + size].astype(np.float32)
    return SamplerRun(part[:calls], part[calls:].reshape(calls + 1, calls + 1))


def format_ranges(numbers: Sequence[int]) -> str:
    """Return ascending ``numbers`` for a message: ``1-20, 25, 50``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
