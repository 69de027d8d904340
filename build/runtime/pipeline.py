"""diffusers' ``StableDiffusionPipeline`` interface for bundles: a script changes its import and how it loads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...devices.discovery.discovery import find_device
from ...support.enums import ComputePrecision
from ...support.errors import BundleError, UsageError
from ..format.reader import Bundle
from ..format.sampler_tables import Sampler, SamplerRun, find_sampler
from ..format.tokenizer import load_tokenizer, token_ids
from ..samplers.schedulers import check_linear, own_sampler
from .driver_warnings import driver_warnings
from .program_selection import find_precision, select_program
from .sampling import bundle_scheduler, named_run, noise_seed_of, scheduler_run
from .torch_noise import run_noise
from .webgpu_runtime import RunStopped, WebGpuRuntime

if TYPE_CHECKING:
    import torch

    from ...devices.device import Device

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class StableDiffusionPipelineOutput:
    """A call's result: ``images`` in the form of ``output_type``. A bundle has no safety checker."""

    images: Any
    nsfw_content_detected: list[bool] | None = None

    def __getitem__(self, key: int | str) -> Any:
        """Return a field by position or name, as diffusers' outputs do."""
        return self.to_tuple()[key] if isinstance(key, int) else getattr(self, key)

    def to_tuple(self) -> tuple[Any, list[bool] | None]:
        """Return (images, nsfw_content_detected)."""
        return (self.images, self.nsfw_content_detected)


class StableDiffusionPipeline:
    """A bundle on a device, called like diffusers' pipeline of the same name.

    The image's size and whether there is guidance are compiled into the bundle. Any number of images can be drawn per
    call, in batches of the bundle's size.
    """

    def __init__(self, runtime: WebGpuRuntime) -> None:
        self._runtime = runtime
        self._bundle = runtime.bundle
        self._tokenizer = load_tokenizer(self._bundle.read("tokenizer/tokenizer.json"))
        self._sampler = self._bundle.default_sampler
        self._scheduler: Any = None
        self._progress_bar: dict[str, Any] = {}
        self._interrupt = False

    @classmethod
    def from_bundle(
        cls, path: Path | str, device: str | Device = "auto", compute: ComputePrecision | str | None = None
    ) -> StableDiffusionPipeline:
        """Load a bundle onto a device; warns where a quirk of its driver may spoil pictures.

        Args:
            path: the bundle's folder.
            device: one of `wgtune devices`, by key, number or part of its name.
            compute: "f32" or "f16" for the bundle's program of that precision; by default the first that the device
                can run.

        Raises:
            BundleError: the folder is not a complete bundle, or has no such program.
            DeviceError: the device is missing or too small.
            UsageError: ``compute`` is no precision.
        """
        bundle = Bundle.open(path)
        found = find_device(device) if isinstance(device, str) else device
        program = select_program(bundle, found, find_precision(compute))
        for warning in driver_warnings(bundle, program, found):
            warnings.warn(warning, stacklevel=2)
        return cls(WebGpuRuntime(bundle, found, program=program))

    def to(self, *_args: Any, **_kwargs: Any) -> StableDiffusionPipeline:
        """Change nothing and return the pipeline: the device was chosen when it was loaded."""
        return self

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Set options of tqdm for the bar of each call, such as ``disable=True``."""
        self._progress_bar = kwargs

    @property
    def bundle(self) -> Bundle:
        """What is drawn with."""
        return self._bundle

    @property
    def runtime(self) -> WebGpuRuntime:
        """What draws; its ``timing`` tells how long the last batch took."""
        return self._runtime

    @property
    def interrupt(self) -> bool:
        """Whether a callback has set ``_interrupt``, which ends the run after the current step."""
        return self._interrupt

    @property
    def scheduler(self) -> Any:
        """The diffusers scheduler that draws. Set it to another one with any settings, or to a name: "DPM++ 2M Karras".

        By name a sampler has the settings of the bundle's model and never clips. Setting raises BundleError for a
        scheduler that no bundle can follow.
        """
        return self._scheduler or bundle_scheduler(self._bundle, self._sampler)

    @scheduler.setter
    def scheduler(self, value: Any) -> None:
        if isinstance(value, str):
            self._sampler, self._scheduler = find_sampler(value), None
            return
        if own_sampler(value) is None:
            known = ", ".join(dict.fromkeys(sampler.class_name for sampler in Sampler))
            raise BundleError(f"no bundle draws with {type(value).__name__}", f"choose one of: {known}")
        check_linear(value)
        self._scheduler = value

    def _run(
        self, steps: int, timesteps: Sequence[int] | None, sigmas: Sequence[float] | None, eta: float
    ) -> SamplerRun:
        if self._scheduler is None and timesteps is None and sigmas is None and not eta:
            return named_run(self._bundle, self._sampler, steps)
        return scheduler_run(self.scheduler, steps, timesteps, sigmas, eta)

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: torch.Tensor | np.ndarray | None = None,
        prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = (),
    ) -> StableDiffusionPipelineOutput | tuple[Any, list[bool] | None]:
        """Draw pictures; parameters mean what they mean in diffusers, in the same order.

        ``generator`` lives on the CPU; without one torch's global generator is used. ``callback_on_step_end`` is
        called with (pipeline, call, timestep, {}) after each model call: tensors stay on the device, so it can watch
        the run, and end it by setting ``pipeline._interrupt``, but not change it. ``output_type`` is "pil", "np"
        (float32 [n, height, width, 3] in 0..1), "pt" (the same as a tensor [n, 3, height, width]) or "latent".

        Raises UsageError for a parameter that a bundle cannot follow, BundleError for a schedule that the sampler
        refuses, and DeviceError where the GPU fails.
        """
        refused = {
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "ip_adapter_image": ip_adapter_image,
            "ip_adapter_image_embeds": ip_adapter_image_embeds,
            "cross_attention_kwargs": cross_attention_kwargs,
            "clip_skip": clip_skip,
            "guidance_rescale": guidance_rescale or None,
            "callback_on_step_end_tensor_inputs": callback_on_step_end_tensor_inputs or None,
        }
        for name, value in refused.items():
            if value is not None:
                raise UsageError(f"a bundle is compiled and cannot follow {name}", f"leave {name} out")
        image = self._bundle.manifest.image
        for name, wanted, built in (("height", height, image.height), ("width", width, image.width)):
            if wanted is not None and wanted != built:
                raise UsageError(
                    f"the bundle draws a {name} of {built}, not {wanted}", f"build one with --{name} {wanted}"
                )
        if output_type not in OUTPUT_TYPES:
            raise UsageError(f"{output_type!r} is no output type", f"choose one of: {', '.join(OUTPUT_TYPES)}")
        texts = _texts(prompt, negative_prompt, num_images_per_prompt or 1)
        count = len(texts)
        guidance = self._guidance(guidance_scale)
        run = self._run(num_inference_steps, timesteps, sigmas, eta)
        start = None if latents is None else _given(latents, count, image.latent)
        config = self._bundle.manifest.schedulers.config if self._scheduler is None else self._scheduler.config
        noise = run_noise(run, generator, count, image.latent, noise_seed_of(config), start)

        batches = range(0, count, image.batch)
        parts = []
        self._interrupt = False
        with self._bar(len(batches) * run.calls) as bar:

            def on_step(done: int, _calls: int) -> bool:
                bar.update()
                if callback_on_step_end is not None:
                    callback_on_step_end(self, done - 1, run.timesteps[done - 1].item(), {})
                return not self._interrupt

            for first in batches:
                # The last batch is padded with copies of its last image.
                chosen = [min(first + i, count - 1) for i in range(image.batch)]
                rows = [self._ids(texts[i][0]) for i in chosen]
                if image.guidance:
                    rows = [self._ids(texts[i][1]) for i in chosen] + rows
                try:
                    self._runtime.draw(
                        rows,
                        np.ascontiguousarray(noise[:, chosen]),
                        run,
                        guidance,
                        on_step,
                        decode=output_type != "latent",
                    )
                except RunStopped:
                    raise UsageError("the callback ended the run before the picture was made") from None
                parts.append(self._result(output_type)[: count - first])
        images = _joined(parts, output_type)
        return StableDiffusionPipelineOutput(images) if return_dict else (images, None)

    def _guidance(self, scale: float) -> float:
        """Return the scale for the runtime: as in diffusers, 1 or less means none."""
        if scale <= 1:
            return 1.0
        if not self._bundle.manifest.image.guidance:
            raise UsageError(
                "the bundle was built without guidance", "pass guidance_scale=1, or build one with guidance"
            )
        return float(scale)

    def _ids(self, text: str) -> list[int]:
        return token_ids(self._tokenizer, self._bundle.manifest.prompt, text)

    def _bar(self, total: int) -> Any:
        from tqdm.auto import tqdm

        return tqdm(total=total, **self._progress_bar)

    def _result(self, output_type: str) -> np.ndarray:
        if output_type == "pil":
            return self._runtime.pixels()
        return self._runtime.latents() if output_type == "latent" else self._runtime.image()


def _texts(
    prompt: str | Sequence[str] | None, negative: str | Sequence[str] | None, per_prompt: int
) -> list[tuple[str, str]]:
    """Return (prompt, negative prompt) of each image; the images of one prompt are neighbours."""
    if prompt is None:
        raise UsageError("there is no prompt", "give a text, or a list of texts")
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts or not all(isinstance(p, str) for p in prompts):
        raise UsageError(f"{prompt!r} is no prompt", "give a text, or a list of texts")
    negatives = [negative or ""] * len(prompts) if negative is None or isinstance(negative, str) else list(negative)
    if len(negatives) != len(prompts):
        raise UsageError(f"there are {len(negatives)} negative prompts for {len(prompts)} prompts", "give one for each")
    return [pair for pair in zip(prompts, negatives, strict=True) for _ in range(per_prompt)]


def _given(latents: torch.Tensor | np.ndarray, count: int, latent: tuple[int, int, int]) -> np.ndarray:
    values = latents if isinstance(latents, np.ndarray) else latents.detach().cpu().numpy()
    if values.shape != (count, *latent):
        raise UsageError(f"latents have the shape {values.shape}, {(count, *latent)} is needed")
    return np.ascontiguousarray(values, np.float32)


def _joined(parts: list[np.ndarray], output_type: str) -> Any:
    """Return the batches' results in the form that diffusers returns."""
    whole = np.concatenate(parts)
    if output_type == "np":
        return np.ascontiguousarray(whole.transpose(0, 2, 3, 1))
    if output_type == "pil":
        from PIL import Image

        return [Image.fromarray(np.ascontiguousarray(picture[..., :3])) for picture in whole]
    import torch

    return torch.from_numpy(whole)
