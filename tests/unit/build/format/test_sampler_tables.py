"""Scheduler tables against diffusers' own sampling loop."""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from wgtune.build.format.sampler_tables import (
    NotLinearError,
    Sampler,
    find_sampler,
    make_table,
    make_tables,
    model_scheduler,
    pack_table,
    sampler_scheduler,
    scheduler_settings,
    tabulate,
    unpack_run,
)
from wgtune.support.errors import BundleError

SD15: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
TURBO = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "epsilon"}


def sampled(scheduler: Any, steps: int, outputs: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """diffusers' sampling loop in float32: the inputs of the model calls, the final latent and the timesteps."""
    scheduler.set_timesteps(steps)
    latent = outputs[0] * scheduler.init_noise_sigma
    inputs = []
    for call, timestep in enumerate(scheduler.timesteps):
        inputs.append(scheduler.scale_model_input(latent, timestep))
        latent = scheduler.step(outputs[call + 1], timestep, latent).prev_sample
    return inputs, latent, scheduler.timesteps


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_type": "v_prediction"},
        {"timestep_spacing": "trailing"},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    ],
    ids=["sd15", "v-prediction", "trailing", "linear"],
)
def test_a_table_in_float32_gives_what_diffusers_gives(sampler: Sampler, steps: int, changes: dict[str, Any]) -> None:
    base = model_scheduler({**SD15, **changes})
    run = tabulate(sampler_scheduler(base, sampler), steps)
    outputs = torch.randn(run.calls + 1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(steps))
    inputs, final, timesteps = sampled(sampler_scheduler(base, sampler), steps, outputs)
    assert run.timesteps.dtype == run.rows.dtype == np.float32
    np.testing.assert_allclose(run.timesteps, timesteps.double().numpy(), rtol=1e-6)
    flat = outputs.reshape(run.calls + 1, -1).numpy()
    for row, expected in zip(run.rows, [*inputs, final], strict=True):
        largest = max(1.0, float(expected.abs().max()))
        np.testing.assert_allclose(row @ flat, expected.reshape(-1).numpy(), atol=2e-5 * largest, rtol=0)


def test_a_row_sees_no_output_that_is_yet_to_come() -> None:
    run = tabulate(sampler_scheduler(model_scheduler(SD15), Sampler.PNDM), 5)
    assert run.calls == 6, "PNDM repeats its second call"
    assert np.array_equal(run.rows, np.tril(run.rows))


def test_sampling_settings_of_the_model_carry_over() -> None:
    base = model_scheduler({**SD15, "prediction_type": "v_prediction"})
    for sampler in Sampler:
        assert sampler_scheduler(base, sampler).config.prediction_type == "v_prediction"
    own, tables = make_tables(TURBO, [Sampler.EULER], 4, warn=pytest.fail)
    assert own is Sampler.EULER
    assert tables[Sampler.EULER].runs[1].timesteps.tolist() == [999.0]


def test_outdated_settings_are_mended_as_the_pipeline_mends_them() -> None:
    outdated = {**SD15, "_class_name": "DDIMScheduler", "clip_sample": True, "steps_offset": 0}
    scheduler = model_scheduler(outdated)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = diffusers.StableDiffusionPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=None,
            scheduler=diffusers.DDIMScheduler.from_config(outdated),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    assert scheduler_settings(scheduler) == scheduler_settings(pipeline.scheduler)
    assert not scheduler.config.clip_sample


@pytest.mark.parametrize(
    "changes", [{"thresholding": True}, {"clip_sample": True}], ids=["dynamic thresholding", "clipping"]
)
def test_a_sampler_that_is_not_linear_is_refused(changes: dict[str, Any]) -> None:
    scheduler = diffusers.DDIMScheduler(
        **{**{k: v for k, v in SD15.items() if k[0] != "_" and k[:4] != "skip"}, **changes}
    )
    with pytest.raises(NotLinearError, match="not linear"):
        tabulate(scheduler, 10)


def test_what_a_scheduler_refuses_is_left_out_and_told() -> None:
    told: list[str] = []
    config = {**SD15, "_class_name": "DDIMScheduler", "num_train_timesteps": 4}
    _, tables = make_tables(config, [Sampler.DDIM], 6, told.append)
    # With an offset of 1 the fourth step would begin behind the last training step; diffusers refuses more than 4.
    assert sorted(tables[Sampler.DDIM].runs) == [1, 2, 3]
    assert len(told) == 1 and "DDIMScheduler" in told[0] and "4-6 steps" in told[0]


def test_no_table_at_all_is_an_error() -> None:
    with pytest.raises(BundleError, match="no scheduler"):
        make_tables({**SD15, "_class_name": "DDIMScheduler", "thresholding": True}, [Sampler.DDIM], 3, lambda _: None)


def test_the_default_is_the_models_own_or_told() -> None:
    assert make_tables(SD15, Sampler, 2, pytest.fail)[0] is Sampler.PNDM
    told: list[str] = []
    ancestral = {**SD15, "_class_name": "EulerAncestralDiscreteScheduler"}
    assert make_tables(ancestral, Sampler, 2, told.append)[0] is Sampler.EULER
    assert any("EulerAncestral" in line for line in told)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "NoSuchScheduler", "StableDiffusionPipeline", ""])
def test_a_model_whose_scheduler_cannot_be_tabulated_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="scheduler"):
        model_scheduler({**SD15, "_class_name": name})


def test_tables_survive_their_file() -> None:
    table = make_table(model_scheduler(SD15), Sampler.EULER, (1, 3, 7))
    data, places = pack_table(table)
    numbers = np.frombuffer(data, "<f4")
    assert numbers.size == sum(c + (c + 1) ** 2 for c in (1, 3, 7))
    for steps, run in table.runs.items():
        again = unpack_run(numbers, places[steps].offset, places[steps].calls)
        assert np.array_equal(again.timesteps, run.timesteps) and np.array_equal(again.rows, run.rows)
    with pytest.raises(BundleError, match="numbers"):
        unpack_run(numbers, places[7].offset, 8)


def test_samplers_are_found_by_name_and_class() -> None:
    assert find_sampler("dpmsolver") is find_sampler("DPMSolverMultistepScheduler") is Sampler.DPM_SOLVER
    with pytest.raises(BundleError) as error:
        find_sampler("heun")
    assert all(s.value in error.value.hint for s in Sampler)
