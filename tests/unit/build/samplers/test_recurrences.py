"""Recurrences against diffusers' own sampling loop."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sampling_loop import NOISE_SEED, SD15, diffusers_run, recurrence_run

from wgtune.build.format.manifest import MOST_STATES
from wgtune.build.format.sampler_tables import Sampler
from wgtune.build.samplers.schedulers import SamplerError, model_scheduler, sampler_scheduler
from wgtune.build.samplers.tables import sampler_run

STATES = {
    Sampler.PNDM: 4,
    Sampler.HEUN: 2,
    Sampler.LMS: 4,
    Sampler.DPM2: 2,
    Sampler.DPM2_A: 2,
    Sampler.DPMPP_2S: 2,
    Sampler.DPMPP_2M: 2,
    Sampler.DPMPP_2M_SDE: 2,
    Sampler.DPMPP_SDE: 2,
    Sampler.UNIPC: 3,
    Sampler.DEIS: 2,
    Sampler.SA_SOLVER: 3,
}
"""Latents that a sampler remembers; the others remember the one that they work on."""

STOCHASTIC = {
    Sampler.DDPM,
    Sampler.EULER_A,
    Sampler.DPM2_A,
    Sampler.DPMPP_2M_SDE,
    Sampler.DPMPP_SDE,
    Sampler.SA_SOLVER,
    Sampler.LCM,
}

CHANGES: dict[str, dict[str, Any]] = {
    "sd15": {},
    "v-prediction": {"prediction_type": "v_prediction"},
    "sample-prediction": {"prediction_type": "sample"},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "linear": {"beta_schedule": "linear"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "zero-snr": {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    "third-order": {"solver_order": 3},
    "last-sigma-min": {"final_sigmas_type": "sigma_min"},
    "runge-kutta": {"skip_prk_steps": False},
    "lu": {"use_lu_lambdas": True},
    "heun-solver": {"solver_type": "heun"},
    "flow": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
}


def assert_equal_runs(scheduler: Any, seen: list[np.ndarray], expected: list[torch.Tensor]) -> None:
    # Single precision loses this of the largest latents that diffusers computes with.
    largest = max(float(scheduler.init_noise_sigma), *(float(one.abs().max()) for one in expected))
    for got, wanted in zip(seen, expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=5e-5 * largest, rtol=0)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("sampler", Sampler)
def test_a_recurrence_gives_what_diffusers_gives(sampler: Sampler, changes: str) -> None:
    base = model_scheduler({**SD15, **CHANGES[changes], "noise_sampler_seed": NOISE_SEED})
    unused = sampler_scheduler(base, sampler)
    for steps in (1, 2, 3, 5, 20):
        try:
            run = sampler_run(copy.deepcopy(unused), steps)
        except SamplerError as error:
            assert str(steps) in error.message or "divides by zero" in error.message
            assert refused_by_diffusers(copy.deepcopy(unused), steps), error
            continue
        scheduler = copy.deepcopy(unused)
        expected, timesteps = diffusers_run(scheduler, lambda one, steps=steps: one.set_timesteps(steps))
        assert run.timesteps.dtype == run.rows.dtype == np.float32
        np.testing.assert_allclose(run.timesteps, timesteps, rtol=1e-6)
        assert_equal_runs(scheduler, recurrence_run(run), expected)
        assert run.draws[0] and run.draws[1:].any() == (sampler in STOCHASTIC and (steps > 1 or run.draws[1]))


def refused_by_diffusers(scheduler: Any, steps: int) -> bool:
    try:
        latents, _ = diffusers_run(scheduler, lambda one: one.set_timesteps(steps))
    except Exception:
        return True
    return not all(torch.isfinite(one).all() for one in latents)


@pytest.mark.parametrize("sampler", Sampler)
def test_memory_does_not_grow_with_the_run(sampler: Sampler) -> None:
    for steps in (20, 50):
        run = sampler_run(sampler_scheduler(model_scheduler(SD15), sampler), steps)
        assert run.states == STATES.get(sampler, 1)
        assert run.rows.shape == (run.calls + 1, run.states, 2 + run.states)


def test_the_most_that_a_sampler_remembers_fits() -> None:
    """PNDM with Runge-Kutta steps at its start keeps the most of all."""
    run = sampler_run(model_scheduler({**SD15, "skip_prk_steps": False}), 20)
    assert run.states == 6 <= MOST_STATES and run.calls == 29


def test_what_a_sampler_remembers_beside_the_latent_does_not_depend_on_it() -> None:
    """A latent that is replaced between two calls, as masked painting does, is replaced in state 0 alone."""
    run = sampler_run(sampler_scheduler(model_scheduler(SD15), Sampler.DPMPP_2M), 6)
    scheduler = sampler_scheduler(model_scheduler(SD15), Sampler.DPMPP_2M)
    scheduler.set_timesteps(6)
    outputs = torch.randn(6, 1, 4, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    latent = torch.ones(1, 4, 2, 2, dtype=torch.float64)
    slots = np.zeros((4, *latent.shape))
    slots[0] = latent
    for call, timestep in enumerate(scheduler.timesteps):
        slots[2:] = np.tensordot(run.rows[call].astype(np.float64), slots, 1)
        np.testing.assert_allclose(slots[2], latent.numpy(), atol=1e-4)
        if call == 3:
            latent = torch.full_like(latent, 0.7)
            slots[2] = 0.7
        slots[1] = outputs[call].numpy()
        latent = scheduler.step(outputs[call], timestep, latent).prev_sample
    slots[2:] = np.tensordot(run.rows[6].astype(np.float64), slots, 1)
    np.testing.assert_allclose(slots[2], latent.numpy(), atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_adds_as_much_noise_as_it_is_told(eta: float) -> None:
    scheduler = sampler_scheduler(model_scheduler(SD15), Sampler.DDIM)
    run = sampler_run(scheduler, 8, eta=eta)
    assert run.draws[1:].any() == (eta > 0)
    again = sampler_scheduler(model_scheduler(SD15), Sampler.DDIM)
    expected, _ = diffusers_run(again, lambda one: one.set_timesteps(8), eta=eta)
    assert_equal_runs(again, recurrence_run(run), expected)


@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [
        (Sampler.EULER, {"timesteps": [999, 850, 500, 249, 10]}),
        (Sampler.EULER, {"sigmas": [14.6, 6.0, 2.5, 1.1, 0.3, 0.0]}),
        (Sampler.HEUN, {"timesteps": [999, 750, 250]}),
        (Sampler.DPMPP_2M, {"timesteps": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]}),
        (Sampler.DPMPP_2M_SDE, {"timesteps": [999, 600, 300, 100]}),
        (Sampler.DPMPP_2S, {"timesteps": [999, 600, 300, 100]}),
        (Sampler.DDPM, {"timesteps": [999, 600, 300, 100]}),
        (Sampler.LCM, {"timesteps": [999, 759, 499, 259]}),
        (Sampler.TCD, {"timesteps": [999, 759, 499, 259]}),
    ],
    ids=lambda value: value.value if isinstance(value, Sampler) else next(iter(value)),
)
def test_the_callers_own_schedule(sampler: Sampler, schedule: dict[str, Any]) -> None:
    base = model_scheduler(SD15)
    run = sampler_run(sampler_scheduler(base, sampler), 50, **schedule)
    scheduler = sampler_scheduler(base, sampler)
    expected, timesteps = diffusers_run(scheduler, lambda one: one.set_timesteps(**schedule))
    np.testing.assert_allclose(run.timesteps, timesteps, rtol=1e-6)
    assert_equal_runs(scheduler, recurrence_run(run), expected)


@pytest.mark.parametrize("argument", ["timesteps", "sigmas"])
def test_a_sampler_that_takes_no_schedule_says_which_do(argument: str) -> None:
    scheduler = sampler_scheduler(model_scheduler(SD15), Sampler.DDIM)
    with pytest.raises(SamplerError, match=f"DDIMScheduler takes no {argument}") as error:
        sampler_run(scheduler, 2, **{argument: [3, 1]})
    assert "euler" in error.value.hint and "ddim" not in error.value.hint


def test_a_schedule_that_a_sampler_refuses_is_told_in_words() -> None:
    karras = sampler_scheduler(model_scheduler({**SD15, "use_karras_sigmas": True}), Sampler.EULER)
    with pytest.raises(SamplerError, match=r"cannot make these timesteps.*use_karras_sigmas = True"):
        sampler_run(karras, 3, timesteps=[999, 500, 1])


@pytest.mark.parametrize(
    ("changes", "setting"), [({"thresholding": True}, "thresholding"), ({"clip_sample": True}, "clip_sample")]
)
def test_a_sampler_that_is_not_linear_is_refused_with_advice_that_works(changes: dict[str, Any], setting: str) -> None:
    config = {k: v for k, v in SD15.items() if k[0] != "_" and k[:4] != "skip"}
    scheduler = diffusers.DDIMScheduler(**{**config, **changes})
    with pytest.raises(SamplerError, match=setting) as error:
        sampler_run(scheduler, 10)
    assert error.value.hint == f"DDIMScheduler.from_config(pipe.scheduler.config, {setting}=False)"
    mended = diffusers.DDIMScheduler.from_config(scheduler.config, **{setting: False})
    assert sampler_run(mended, 10).calls == 10


def test_clipping_that_no_setting_tells_of_is_found() -> None:
    class Clipping(diffusers.DDIMScheduler):  # type: ignore[misc]
        def step(self, *args: Any, **kwargs: Any) -> Any:
            made = super().step(*args, **kwargs)
            made.prev_sample = made.prev_sample.clamp(-1, 1)
            return made

    with pytest.raises(SamplerError, match="not linear"):
        sampler_run(Clipping(clip_sample=False), 5)


def test_noise_alone_needs_v_prediction() -> None:
    """Where the last training step is pure noise, predicted noise tells nothing of the picture: diffusers gives NaN."""
    config = {**SD15, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "_class_name": "DDIMScheduler"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SamplerError, match="divides by zero") as error:
            sampler_run(model_scheduler(config), 4)
    assert "v_prediction" in error.value.hint


def test_noise_levels_that_end_in_zero_do_not_suit_all_settings() -> None:
    config = {**SD15, "_class_name": "UniPCMultistepScheduler", "predict_x0": False}
    with pytest.raises(SamplerError, match="divides by zero") as error:
        sampler_run(model_scheduler(config), 4)
    assert 'final_sigmas_type="sigma_min"' in error.value.hint
    assert sampler_run(model_scheduler({**config, "final_sigmas_type": "sigma_min"}), 4).calls == 4


def test_the_schedulers_own_errors_stay_inside() -> None:
    """PNDM with trailing steps and Runge-Kutta steps at its start fails in NumPy for very few steps."""
    config = {**SD15, "timestep_spacing": "trailing", "skip_prk_steps": False}
    told = "PNDMScheduler .* cannot make 2 steps .*timestep_spacing = 'trailing'.* skip_prk_steps = False"
    with pytest.raises(SamplerError, match=told) as error:
        sampler_run(model_scheduler(config), 2)
    assert "shape" not in error.value.message and "broadcast" not in error.value.message


def test_diffusers_modules_are_left_as_they_were() -> None:
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as module
    from diffusers.utils.torch_utils import randn_tensor

    sampler_run(sampler_scheduler(model_scheduler(SD15), Sampler.EULER_A), 3)
    assert module.torch is torch and module.randn_tensor is randn_tensor
