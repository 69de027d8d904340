"""A bundle draws what diffusers draws with PyTorch on the CPU, within 2/255 on every pixel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import wgtune
from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.sampler_tables import Sampler
from wgtune.devices.device import Device
from wgtune.support.errors import BundleError, UsageError
from wgtune.tuner.ir import CaptureOptions

LONG = "a very detailed painting of a lighthouse on a cliff above the sea, " * 10
UNICODE = "naïve café, 猫 and 🐈‍⬛ on an über-sofa"
CASES = [
    (1, 7.5, 0, "a red fox", None),
    (2, 1.0, 1, "", None),
    (5, 7.5, 2, LONG, "blurry, ugly"),
    (20, 7.5, 2**40 + 3, UNICODE, LONG),
]


@pytest.fixture(scope="module")
def reference(demo_folder: Path) -> Any:
    """diffusers' pipeline on PyTorch."""
    diffusers.utils.logging.set_verbosity_error()
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(demo_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline(demo_bundle: Path, device: Device) -> Iterator[wgtune.StableDiffusionPipeline]:
    """The same model as a bundle."""
    loaded = wgtune.StableDiffusionPipeline.from_bundle(demo_bundle, device)
    loaded.set_progress_bar_config(disable=True)
    yield loaded
    loaded.runtime.close()


@pytest.fixture(autouse=True)
def own_samplers(pipeline: Any, reference: Any) -> Iterator[None]:
    """A test that changes the sampler of the pipelines, which all tests share, changes no other test's."""
    samplers = pipeline.scheduler, reference.scheduler
    yield
    pipeline.scheduler, reference.scheduler = samplers


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def largest_difference(got: list[Any], expected: list[Any]) -> int:
    """In levels of 255, over all pixels of PIL images."""
    assert len(got) == len(expected)
    return max(
        int(np.abs(np.asarray(a, np.int32) - np.asarray(b, np.int32)).max()) for a, b in zip(got, expected, strict=True)
    )


@pytest.mark.parametrize(("steps", "guidance", "seed", "prompt", "negative"), CASES)
def test_pictures_match(
    pipeline: Any, reference: Any, steps: int, guidance: float, seed: int, prompt: str, negative: str
) -> None:
    images = []
    for pipe in (pipeline, reference):
        images.append(
            pipe(
                prompt,
                num_inference_steps=steps,
                guidance_scale=guidance,
                negative_prompt=negative,
                generator=seeded(seed),
            ).images
        )
    assert largest_difference(*images) <= 1
    assert np.asarray(images[0][0]).std() > 5, "a flat picture would prove nothing"


@pytest.mark.parametrize("sampler", Sampler)
def test_every_sampler_draws_what_diffusers_draws(pipeline: Any, reference: Any, sampler: Sampler) -> None:
    """By name from the bundle's table, and as the two lines do it with which a script changes its sampler."""
    # By name a motion has the picture's seed, which diffusers must be told.
    changes: dict[str, Any] = {"noise_sampler_seed": 11} if sampler is Sampler.DPMPP_SDE else {}
    if sampler is Sampler.DPMPP_2M_SDE:
        changes = {"algorithm_type": "sde-dpmsolver++"}
    pictures = []
    for pipe, value in (
        (reference, None),
        (pipeline, sampler.label),
        (pipeline, None),
    ):
        made = getattr(diffusers, sampler.class_name).from_config(reference.scheduler.config, **changes)
        pipe.scheduler = value or made
        pictures.append(pipe("a red fox", negative_prompt="snow", num_inference_steps=4, generator=seeded(11)).images)
    expected, *got = pictures
    for images in got:
        assert largest_difference(images, expected) <= 1


@pytest.mark.parametrize(
    ("sampler", "changes"),
    [
        (Sampler.DPMPP_2M, {"use_karras_sigmas": True}),
        (Sampler.EULER_A, {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
        (Sampler.UNIPC, {"use_exponential_sigmas": True, "solver_order": 3}),
        (Sampler.DDIM, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
        (Sampler.DPMPP_2S, {"algorithm_type": "sde-dpmsolver++", "use_beta_sigmas": True}),
    ],
    ids=lambda value: value.value if isinstance(value, Sampler) else ", ".join(value),
)
def test_a_scheduler_may_have_settings_of_its_own(
    pipeline: Any, reference: Any, sampler: Sampler, changes: dict[str, Any]
) -> None:
    images = []
    for pipe in (pipeline, reference):
        pipe.scheduler = getattr(diffusers, sampler.class_name).from_config(pipe.scheduler.config, **changes)
        images.append(pipe("a castle", num_inference_steps=6, generator=seeded(12)).images)
    assert largest_difference(*images) <= 1


@pytest.mark.parametrize(
    ("class_name", "arguments"),
    [
        ("EulerDiscreteScheduler", {"timesteps": [999, 700, 400, 200, 50]}),
        ("EulerDiscreteScheduler", {"sigmas": [14.6, 5.0, 2.0, 0.7, 0.0]}),
        ("DPMSolverMultistepScheduler", {"timesteps": [999, 845, 587, 310, 116, 13]}),
        ("DDIMScheduler", {"eta": 0.7, "num_inference_steps": 5}),
        ("TCDScheduler", {"eta": 0.3, "num_inference_steps": 4}),
    ],
)
def test_the_callers_own_schedule(pipeline: Any, reference: Any, class_name: str, arguments: dict[str, Any]) -> None:
    images = []
    for pipe in (pipeline, reference):
        pipe.scheduler = getattr(diffusers, class_name).from_config(pipe.scheduler.config)
        images.append(pipe("a red fox", generator=seeded(13), **arguments).images)
    assert largest_difference(*images) <= 1


def test_noise_levels_by_name(pipeline: Any, reference: Any) -> None:
    """From the bundle's table, and computed."""
    config = reference.scheduler.config
    for name, levels in (("DPM++ 2M Karras", "karras"), ("dpmpp-2m-exponential", "exponential")):
        pipeline.scheduler = name
        reference.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
            config, **{f"use_{levels}_sigmas": True}
        )
        pictures = [
            pipe("a red fox", num_inference_steps=4, generator=seeded(3)).images for pipe in (pipeline, reference)
        ]
        assert largest_difference(*pictures) <= 1
    assert "dpmpp-2m-karras" in pipeline.bundle.manifest.schedulers.tables


def test_any_number_of_steps_can_be_drawn(pipeline: Any, reference: Any) -> None:
    assert 23 not in pipeline.bundle.manifest.schedulers.tables["pndm"].runs
    images = [pipe("a red fox", num_inference_steps=23, generator=seeded(2)).images for pipe in (pipeline, reference)]
    assert largest_difference(*images) <= 1


def test_noise_of_several_pictures(pipeline: Any, reference: Any) -> None:
    """One generator draws the noise of a step for all pictures at once; of several each draws its picture's own."""
    for generators in (1, 3):
        images = []
        for pipe in (pipeline, reference):
            pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
            seeds = [seeded(seed) for seed in range(20, 20 + generators)]
            images.append(
                pipe(
                    ["a red fox", "a castle", ""],
                    num_inference_steps=3,
                    generator=seeds if generators > 1 else seeds[0],
                ).images
            )
        assert largest_difference(*images) <= 1


def test_pictures_larger_than_a_binding_are_the_same(
    demo_folder: Path, demo_in_parts: Path, reference: Any, device: Device, tmp_path: Path
) -> None:
    options = CaptureOptions(width=192, height=192)
    build_bundle(BuildRequest(str(demo_folder), tmp_path / "whole", options=options, max_steps=5, page=False), None)
    bound, pictures = [], []
    for folder in (demo_in_parts, tmp_path / "whole"):
        pipeline = wgtune.StableDiffusionPipeline.from_bundle(folder, device)
        pipeline.set_progress_bar_config(disable=True)
        bound.append(pipeline.runtime.program.info.requires.limits["maxStorageBufferBindingSize"])
        pictures.append(pipeline("a red fox", num_inference_steps=3, generator=seeded(5)).images)
        pipeline.runtime.close()
    assert bound[0] <= 2 << 20 < 9 << 18 <= bound[1]
    assert largest_difference(*pictures) <= 1
    expected = reference("a red fox", width=192, height=192, num_inference_steps=3, generator=seeded(5)).images
    assert largest_difference(pictures[0], expected) <= 2


def test_prompt_seed_and_guidance_matter(pipeline: Any) -> None:
    def draw(
        prompt: str = "a red fox", seed: int = 0, guidance: float = 7.5, negative: str | None = None
    ) -> np.ndarray:
        return pipeline(
            prompt,
            num_inference_steps=3,
            guidance_scale=guidance,
            negative_prompt=negative,
            generator=seeded(seed),
            output_type="np",
        ).images

    pictures = [draw(), draw(prompt="a dog"), draw(seed=1), draw(guidance=1.0), draw(negative="grass")]
    for i, one in enumerate(pictures):
        assert all(np.abs(one - other).max() > 1e-4 for other in pictures[:i])
    assert np.array_equal(pictures[0], draw())


@pytest.mark.parametrize("output_type", ["np", "pt", "latent"])
def test_output_types_match(pipeline: Any, reference: Any, output_type: str) -> None:
    got, expected = (
        pipe("a red fox", num_inference_steps=2, generator=seeded(3), output_type=output_type, return_dict=False)
        for pipe in (pipeline, reference)
    )
    assert type(got[0]) is type(expected[0]) and got[0].dtype == expected[0].dtype
    np.testing.assert_allclose(np.asarray(got[0]), np.asarray(expected[0]), atol=2 / 255)
    assert got[1] is None


def test_several_prompts_and_images_each_are_drawn_in_diffusers_order(pipeline: Any, reference: Any) -> None:
    images = [
        pipe(
            ["a red fox", "a castle"],
            negative_prompt=["snow", ""],
            num_images_per_prompt=2,
            num_inference_steps=2,
            generator=[seeded(seed) for seed in (5, 6, 7, 8)],
        ).images
        for pipe in (pipeline, reference)
    ]
    assert len(images[0]) == 4
    assert largest_difference(*images) <= 2


def test_latents_may_be_given(pipeline: Any, reference: Any) -> None:
    latents = torch.randn(1, 4, 16, 16, generator=seeded(9))
    images = [pipe("a red fox", latents=latents, num_inference_steps=2).images for pipe in (pipeline, reference)]
    assert largest_difference(*images) <= 2
    with pytest.raises(UsageError, match="shape"):
        pipeline("a red fox", latents=latents[:, :3], num_inference_steps=2)


def test_callbacks_see_the_steps_and_can_end_the_run(pipeline: Any) -> None:
    seen: list[tuple[int, float]] = []

    def watch(pipe: Any, step: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, timestep))
        pipe._interrupt = len(seen) == 6
        return tensors

    pipeline.scheduler = "ddim"
    pipeline("a", num_inference_steps=4, callback_on_step_end=watch)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert [t for _, t in seen] == sorted((t for _, t in seen), reverse=True)
    with pytest.raises(UsageError, match="ended the run"):
        pipeline("a", num_inference_steps=4, callback_on_step_end=watch)
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"height": 64}, "height of 128, not 64"),
        ({"width": 512}, "width of 128, not 512"),
        ({"num_inference_steps": 0}, "no picture of 0 steps"),
        ({"timesteps": [999, 500]}, "PNDMScheduler takes no timesteps"),
        ({"timesteps": [999, 500], "sigmas": [1.0, 0.0]}, "both timesteps and sigmas"),
        ({"clip_skip": 1}, "clip_skip"),
        ({"callback_on_step_end_tensor_inputs": ["latents"]}, "callback_on_step_end_tensor_inputs"),
        ({"output_type": "jpeg"}, "jpeg"),
        ({"prompt": None}, "no prompt"),
        ({"prompt": []}, "no prompt"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1"),
        ({"generator": [torch.Generator(), torch.Generator()]}, "2 generators for 1"),
    ],
)
def test_what_a_bundle_cannot_do_is_said(pipeline: Any, arguments: dict[str, Any], what: str) -> None:
    with pytest.raises((UsageError, BundleError), match=what) as error:
        pipeline(**{"prompt": "a red fox", "num_inference_steps": 2, **arguments})
    assert error.value.hint


def test_a_scheduler_that_no_bundle_can_follow_is_refused_with_advice_that_works(pipeline: Any) -> None:
    with pytest.raises(BundleError, match="FlowMatchEulerDiscreteScheduler"):
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    # Where a model's configuration says nothing of clipping, diffusers' DDIM clips.
    config = {name: value for name, value in pipeline.scheduler.config.items() if name != "clip_sample"}
    with pytest.raises(BundleError, match="clip_sample") as error:
        pipeline.scheduler = diffusers.DDIMScheduler.from_config(config)
    assert "DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)" in error.value.hint
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    assert not pipeline.scheduler.config.clip_sample


def test_another_size_a_batch_and_a_rest(demo_folder: Path, reference: Any, device: Device, tmp_path: Path) -> None:
    options = CaptureOptions(width=192, height=128, batch=2)
    request = BuildRequest(
        str(demo_folder), tmp_path / "dist", options=options, max_steps=3, samplers=(Sampler.EULER,), page=False
    )
    summary = build_bundle(request, None)
    assert any("PNDM" in line for line in summary.warnings), "the model's own scheduler was left out"
    pipeline = wgtune.StableDiffusionPipeline.from_bundle(tmp_path / "dist", device)
    reference.scheduler = diffusers.EulerDiscreteScheduler.from_config(reference.scheduler.config)
    # Three images in batches of two: the last batch is half empty.
    images = [
        pipe(
            ["a red fox", "a castle", UNICODE],
            negative_prompt=["snow"] * 3,
            width=192,
            height=128,
            num_inference_steps=3,
            generator=seeded(4),
        ).images
        for pipe in (pipeline, reference)
    ]
    assert images[0][0].size == (192, 128)
    assert largest_difference(*images) <= 2
    pipeline.runtime.close()


def test_a_bundle_without_guidance(demo_folder: Path, reference: Any, device: Device, tmp_path: Path) -> None:
    options = CaptureOptions(guidance=False)
    request = BuildRequest(str(demo_folder), tmp_path / "dist", options=options, max_steps=4, page=False)
    build_bundle(request, None)
    pipeline = wgtune.StableDiffusionPipeline.from_bundle(tmp_path / "dist", device)
    pipeline.scheduler = "euler"
    reference.scheduler = diffusers.EulerDiscreteScheduler.from_config(reference.scheduler.config)
    images = [
        pipe("a red fox", num_inference_steps=4, guidance_scale=0.0, generator=seeded(4)).images
        for pipe in (pipeline, reference)
    ]
    assert largest_difference(*images) <= 2
    with pytest.raises(UsageError, match="without guidance"):
        pipeline("a red fox", num_inference_steps=4)
    pipeline.runtime.close()


def test_token_ids_are_those_of_the_pipelines_tokenizer(pipeline: Any, reference: Any) -> None:
    texts = [
        "",
        " ",
        "a red fox",
        "A  Red\nFOX!",
        LONG,
        UNICODE,
        "<|endoftext|> x",
        "it's 2026 & they're 100% fine…",
        "ﬁ Å é",
    ]
    for text in texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = reference.tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert pipeline._ids(text) == expected, text
