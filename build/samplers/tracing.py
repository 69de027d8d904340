"""Runs a diffusers scheduler on unit vectors, which gives every model input as coefficients of all that went in.

A sampler is linear in the first latent, the model's outputs and the noise that it draws, unless it clips. A few columns
of random numbers are run along: where the coefficients do not reproduce these, the sampler is not linear.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .schedulers import SamplerError, check_linear

PROBES = 16
"""Number of random columns that check linearity."""

LINEAR_TOLERANCE = 1e-6
"""Largest difference between the coefficients applied to the probes and the probes' own run, relative to its largest
magnitude."""

_LOCK = threading.Lock()
"""Held while names of a scheduler's module are replaced."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A run of C model calls.

    - ``timesteps``: float64 [C]
    - ``draws``: bool [C], whether the step after call i draws noise
    - ``inputs``: float64 [C + 1, 1 + 3 C]; row i is what call i receives, row C the final latent. Columns 3 i, 3 i + 1
      and 3 i + 2 are for what is added to the latent of call i (for i = 0 the unit-variance noise that all starts
      from, otherwise nothing), the output of call i, and the noise drawn in the step after it.
    - ``intervals``: as `SamplerRun.intervals`
    """

    timesteps: np.ndarray
    draws: np.ndarray
    inputs: np.ndarray
    intervals: np.ndarray | None


def trace_run(scheduler: Any, prepare: Callable[[Any], None], step_options: dict[str, Any] | None = None) -> Trace:
    """Run ``scheduler`` after ``prepare``, which calls its ``set_timesteps``, in double precision.

    Args:
        scheduler: a diffusers scheduler, whose state is overwritten.
        prepare: sets its timesteps.
        step_options: more arguments of its ``step``, such as ``eta``; those that it does not take are left out.

    Raises:
        SamplerError: the scheduler clips or adapts, draws noise in a way that is not known, or does not end in finite
            numbers.
        Exception: the scheduler's own error for timesteps that it refuses.
    """
    import torch

    check_linear(scheduler)
    prepare(scheduler)
    calls = len(scheduler.timesteps)
    width = 1 + 3 * calls
    probes = 3 * torch.randn(width, PROBES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # Schedulers only look at the number of dimensions: batch, channels, height, width.
    columns = torch.cat([torch.eye(width, dtype=torch.float64), probes], dim=1).reshape(width, 1, 1, 1, -1)
    accepted = inspect.signature(scheduler.step).parameters
    options = {name: value for name, value in (step_options or {}).items() if name in accepted}
    draws = np.zeros(calls, np.int64)
    intervals = np.zeros((calls + 1, 2), np.float32)
    noise = _Noise()
    rows = []
    latent = columns[0] * scheduler.init_noise_sigma
    for call, timestep in enumerate(scheduler.timesteps):
        noise.prepare(columns[3 * call + 2])
        with noise.within(scheduler):
            rows.append(scheduler.scale_model_input(latent, timestep))
            latent = scheduler.step(columns[3 * call + 1], timestep, latent, **options).prev_sample
        draws[call] = noise.draws
        intervals[call + 1] = noise.interval
        latent = latent + columns[3 * call + 3]
    rows.append(latent)
    whole = torch.cat([row.reshape(1, -1).double() for row in rows]).numpy()
    inputs, probed = whole[:, :width], whole[:, width:]
    _check(scheduler, draws, inputs, probed, inputs @ probes.numpy())
    intervals[0] = noise.ends or 0
    return Trace(scheduler.timesteps.double().numpy(), draws > 0, inputs, intervals if noise.ends else None)


def _check(scheduler: Any, draws: np.ndarray, inputs: np.ndarray, probed: np.ndarray, expected: np.ndarray) -> None:
    name = type(scheduler).__name__
    if not np.isfinite(inputs).all() or not np.isfinite(probed).all():
        raise SamplerError(
            f"{name} divides by zero with these settings and timesteps",
            _advice_on_infinity(scheduler.config),
        )
    difference = float(np.abs(expected - probed).max())
    if difference > LINEAR_TOLERANCE * max(1.0, float(np.abs(probed).max())):
        raise SamplerError(f"{name} is not linear in its inputs (off by {difference:.1e})", "choose another sampler")
    if draws.max(initial=0) > 1:
        raise SamplerError(f"{name} draws noise {draws.max()} times in a step", "choose another sampler")


def _advice_on_infinity(config: Mapping[str, Any]) -> str:
    if config.get("rescale_betas_zero_snr") and config.get("prediction_type") == "epsilon":
        return 'where training ends in pure noise (rescale_betas_zero_snr), it takes prediction_type="v_prediction"'
    if config.get("final_sigmas_type") == "zero":
        return 'these settings may need final_sigmas_type="sigma_min"'
    return "choose other steps, or another sampler"


class _DoubleTorch:
    """Stands in for torch in a scheduler's module: what it would round to single precision stays in double."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


class _Noise:
    """What a scheduler draws from: hands out ``next``, and keeps how often, and between which times of a motion.

    ``ends`` are those of the motion.
    """

    def __init__(self) -> None:
        self.next: Any = None
        self.draws = 0
        self.interval = (0.0, 0.0)
        self.ends: tuple[float, float] | None = None

    def prepare(self, values: Any) -> None:
        """Hand out ``values`` in the next step."""
        self.next, self.draws, self.interval = values, 0, (0.0, 0.0)

    def draw(self, *_: Any, **__: Any) -> Any:
        """Stand in for diffusers' ``randn_tensor``."""
        self.draws += 1
        return self.next

    def sampler(self, _sample: Any, sigma_min: float, sigma_max: float, *_: Any, **__: Any) -> Callable[..., Any]:
        """Stand in for diffusers' ``BrownianTreeNoiseSampler``, whose increments are scaled to unit variance."""
        self.ends = (sigma_max, sigma_min)

        def draw(sigma: Any, sigma_next: Any) -> Any:
            self.interval = (float(sigma), float(sigma_next))
            return self.draw()

        return draw

    @contextmanager
    def within(self, scheduler: Any) -> Iterator[None]:
        """Let ``scheduler`` draw from here, and compute in double precision."""
        import torch

        module = sys.modules[type(scheduler).__module__]
        stand_ins = {
            "torch": _DoubleTorch(torch),
            "randn_tensor": self.draw,
            "BrownianTreeNoiseSampler": self.sampler,
        }
        with _LOCK:
            replaced = {name: getattr(module, name) for name in stand_ins if hasattr(module, name)}
            try:
                for name in replaced:
                    setattr(module, name, stand_ins[name])
                yield
            finally:
                for name, own in replaced.items():
                    setattr(module, name, own)
