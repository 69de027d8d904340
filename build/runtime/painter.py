"""Draws images into PNG files, whose text metadata says how each was made."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ...support.enums import ComputePrecision
from ...support.errors import UsageError
from ..format.manifest import TOKENIZER
from ..format.reader import Bundle
from ..format.sampler_tables import AnySampler, SamplerRun, find_sampler
from ..format.tokenizer import load_tokenizer, token_ids
from .driver_warnings import driver_warnings
from .program_selection import find_precision, select_program
from .sampling import named_run, noise_seed_of
from .torch_noise import seeded_noise
from .webgpu_runtime import RunTiming, WebGpuRuntime

if TYPE_CHECKING:
    from ...devices.device import Device

ProgressCallback = Callable[[str, float], None]
"""Receives the current step and the share of the whole that is done, from 0 to 1."""


@dataclass(frozen=True)
class GenerateOptions:
    """Options of all images of a run.

    ``scheduler`` is a sampler's name or diffusers class, None for the model's own. ``compute`` chooses among the
    bundle's programs; without it the first that the device can run is taken.
    """

    negative_prompt: str = ""
    steps: int = 20
    guidance: float = 7.5
    scheduler: str | None = None
    compute: ComputePrecision | None = None


@dataclass(frozen=True)
class GeneratedImage:
    """An image's file, size in pixels, device key and options, and the seconds that loading and drawing took.

    ``warnings`` are those of `driver_warnings`.
    """

    path: Path
    width: int
    height: int
    device: str
    scheduler: str
    steps: int
    guidance: float
    compute: ComputePrecision
    seed: int
    load_s: float
    timing: RunTiming
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResolvedOptions:
    """`GenerateOptions` resolved for one bundle; ``guidance`` is 1 for none."""

    negative_prompt: str
    sampler: AnySampler
    steps: int
    run: SamplerRun
    guidance: float
    compute: ComputePrecision | None


def resolve_options(bundle: Bundle, options: GenerateOptions) -> ResolvedOptions:
    """Resolve ``options`` for ``bundle``.

    Raises:
        UsageError: the guidance scale is not a number, or the bundle has no guidance.
        BundleError: the sampler does not offer the number of steps, or the bundle lacks a program of the precision.
    """
    if not math.isfinite(options.guidance):
        raise UsageError(f"{options.guidance} is no guidance scale", "7.5 is usual; 1 means none")
    if options.guidance > 1 and not bundle.manifest.image.guidance:
        raise UsageError("the bundle was built without guidance", "add --guidance 1, or build one with guidance")
    sampler = bundle.default_sampler if options.scheduler is None else find_sampler(options.scheduler)
    run = named_run(bundle, sampler, options.steps)
    # As a child process is told it, it is a plain text.
    compute = find_precision(options.compute)
    bundle.programs_of(compute)
    return ResolvedOptions(options.negative_prompt, sampler, options.steps, run, max(1.0, options.guidance), compute)


def png_metadata(bundle: Bundle, settings: ResolvedOptions, prompt: str, seed: int) -> dict[str, str]:
    """Return the text metadata that determines an image, which is all but the device.

    The precision is part of it where it was chosen, and left to the device otherwise.
    """
    chosen = {} if settings.compute is None else {"compute": settings.compute.value}
    return chosen | {
        "prompt": prompt,
        "negative_prompt": settings.negative_prompt,
        "seed": str(seed),
        "steps": str(settings.steps),
        "guidance": str(settings.guidance),
        "scheduler": settings.sampler.value,
        "model": bundle.manifest.model.name,
    }


class Painter:
    """A bundle loaded onto a device, with the options of all its images; a context manager that frees the memory."""

    def __init__(
        self, bundle: Bundle, device: Device, settings: ResolvedOptions, loading: ProgressCallback | None = None
    ) -> None:
        """Load the bundle; raises as `WebGpuRuntime` does. ``loading`` receives its progress."""
        self._bundle = bundle
        self._device = device
        self._settings = settings
        self._tokenizer = load_tokenizer(bundle.read(TOKENIZER))
        started = time.perf_counter()
        self._program = select_program(bundle, device, settings.compute)
        self._runtime = WebGpuRuntime(bundle, device, loading, program=self._program)
        self._warnings = driver_warnings(bundle, self._program, device)
        self.load_s = time.perf_counter() - started

    def __enter__(self) -> Painter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runtime.close()

    def draw(
        self, prompt: str, seed: int, output: Path, on_step: Callable[[int, int], None] | None = None
    ) -> GeneratedImage:
        """Draw ``prompt`` into the PNG file ``output``, which is written in one step.

        ``on_step`` receives the number of UNet calls done, and of all.

        Raises:
            UsageError: the file cannot be written, or torch does not take the seed.
            DeviceError: the GPU fails.
        """
        image, settings = self._bundle.manifest.image, self._settings
        noise_seed = noise_seed_of(self._bundle.manifest.schedulers.config)
        noise = seeded_noise(settings.run, seed, image.latent, noise_seed).repeat(image.batch, axis=1)
        texts = [self._ids(prompt)] * image.batch
        if image.guidance:
            texts = [self._ids(settings.negative_prompt)] * image.batch + texts
        self._runtime.draw(texts, noise, settings.run, settings.guidance, on_step)
        pixels = self._runtime.pixels()[0, ..., :3]
        texts_of = png_metadata(self._bundle, settings, prompt, seed) | {
            "device": self._device.key,
            "compute": self._program.info.compute.value,
            "software": f"wgtune {self._bundle.manifest.wgtune}",
        }
        save_png(pixels, output, texts_of)
        return GeneratedImage(
            path=output,
            width=image.width,
            height=image.height,
            device=self._device.key,
            scheduler=settings.sampler.value,
            steps=settings.steps,
            guidance=settings.guidance,
            compute=self._program.info.compute,
            seed=seed,
            load_s=self.load_s,
            timing=self._runtime.timing,
            warnings=self._warnings,
        )

    def _ids(self, text: str) -> list[int]:
        return token_ids(self._tokenizer, self._bundle.manifest.prompt, text)


def save_png(pixels: np.ndarray, path: Path, texts: dict[str, str]) -> None:
    """Write uint8 [height, width, 3] with ``texts`` as metadata, in one step; UsageError where that fails."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in texts.items():
        # International text chunks: a prompt may be in any script.
        info.add_itxt(key, value)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(partial, format="PNG", pnginfo=info)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror or error}", "choose another file with -o") from error
