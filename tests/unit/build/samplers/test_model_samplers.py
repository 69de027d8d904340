"""The samplers of a model: its own, the others with its settings, and what is left out."""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import numpy as np
import pytest
from sampling_loop import SD15

from wgtune.build.format.sampler_tables import USUAL_SAMPLERS, Sampler, find_sampler
from wgtune.build.samplers.schedulers import model_scheduler, own_sampler, sampler_scheduler, scheduler_settings
from wgtune.build.samplers.tables import make_table, make_tables
from wgtune.support.errors import BundleError

TURBO = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "epsilon"}


def test_settings_of_the_model_carry_over() -> None:
    base = model_scheduler({**SD15, "prediction_type": "v_prediction", "use_karras_sigmas": True})
    for sampler in Sampler:
        settings = scheduler_settings(sampler_scheduler(base, sampler))
        assert settings["prediction_type"] == "v_prediction"
        assert settings.get("use_karras_sigmas", True)
    own, tables = make_tables(TURBO, [Sampler.EULER], 4, warn=pytest.fail)
    assert own is Sampler.EULER
    assert tables[Sampler.EULER].runs[1].timesteps.tolist() == [999.0]


@pytest.mark.parametrize("sampler", Sampler)
def test_the_models_own_sampler_is_the_default(sampler: Sampler) -> None:
    changes = {"algorithm_type": "sde-dpmsolver++"} if sampler is Sampler.DPMPP_2M_SDE else {}
    config = {**SD15, "_class_name": sampler.class_name, **changes}
    own, tables = make_tables(config, list(Sampler), 2, pytest.fail)
    assert own is sampler and list(tables) == list(Sampler)
    assert own_sampler(model_scheduler(config)) is sampler


def test_noise_levels_by_name() -> None:
    karras = find_sampler("DPM++ 2M Karras")
    scheduler = sampler_scheduler(model_scheduler({**SD15, "use_beta_sigmas": True}), karras)
    assert scheduler.config.use_karras_sigmas and not scheduler.config.use_beta_sigmas
    own, tables = make_tables(SD15, USUAL_SAMPLERS, 2, pytest.fail)
    assert own is Sampler.PNDM and tables[karras].label == "DPM++ 2M Karras"
    assert not np.array_equal(tables[karras].runs[2].rows, tables[Sampler.DPMPP_2M].runs[2].rows)
    # Where the model's configuration has such levels, the plain name means the same.
    _, tables = make_tables({**SD15, "use_karras_sigmas": True}, USUAL_SAMPLERS, 2, pytest.fail)
    assert karras not in tables and tables[Sampler.DPMPP_2M].label == "DPM++ 2M Karras"


def test_a_sampler_without_such_noise_levels_says_which_have() -> None:
    with pytest.raises(BundleError, match="DDIM has no Karras noise levels") as error:
        sampler_scheduler(model_scheduler(SD15), find_sampler("ddim-karras"))
    assert "euler" in error.value.hint and "ddim" not in error.value.hint


def test_a_default_that_is_not_in_the_bundle_is_told() -> None:
    told: list[str] = []
    assert make_tables(SD15, [Sampler.DDIM, Sampler.EULER], 2, told.append)[0] is Sampler.EULER
    assert any("PNDM" in line for line in told)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "DPM++ 2M"),
        ({"use_karras_sigmas": True}, "DPM++ 2M Karras"),
        ({"use_exponential_sigmas": True}, "DPM++ 2M exponential"),
        ({"use_beta_sigmas": True}, "DPM++ 2M beta"),
    ],
)
def test_a_label_tells_the_noise_levels(changes: dict[str, Any], label: str) -> None:
    assert make_table(model_scheduler({**SD15, **changes}), Sampler.DPMPP_2M, [4]).label == label


def test_samplers_that_share_a_class_are_told_apart() -> None:
    stochastic = model_scheduler({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"})
    assert sampler_scheduler(stochastic, Sampler.DPMPP_2M).config.algorithm_type == "dpmsolver++"
    older = model_scheduler(
        {
            "_class_name": "DPMSolverMultistepScheduler",
            "algorithm_type": "dpmsolver",
            "final_sigmas_type": "sigma_min",
        }
    )
    # The model's own choice stays.
    assert own_sampler(older) is Sampler.DPMPP_2M
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sampler_scheduler(older, Sampler.DPMPP_2M).config.algorithm_type == "dpmsolver"
    assert sampler_scheduler(older, Sampler.DPMPP_2M_SDE).config.algorithm_type == "sde-dpmsolver++"


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


def test_what_a_scheduler_refuses_is_left_out_and_told() -> None:
    told: list[str] = []
    config = {**SD15, "_class_name": "DDIMScheduler", "num_train_timesteps": 4}
    _, tables = make_tables(config, [Sampler.DDIM], 6, told.append)
    # With an offset of 1 the fourth step would begin behind the last training step; diffusers refuses more than 4.
    assert sorted(tables[Sampler.DDIM].runs) == [1, 2, 3]
    assert len(told) == 1 and "DDIM" in told[0] and "4-6 steps" in told[0]


def test_no_table_at_all_is_an_error() -> None:
    with pytest.raises(BundleError, match="no scheduler"):
        make_tables({**SD15, "_class_name": "DDIMScheduler", "thresholding": True}, [Sampler.DDIM], 3, lambda _: None)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "NoSuchScheduler", "StableDiffusionPipeline", ""])
def test_a_model_whose_scheduler_cannot_be_tabulated_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="scheduler"):
        model_scheduler({**SD15, "_class_name": name})
