"""One picture from a bundle into a PNG file: what `wgtune generate` does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .bundle import Bundle
from .manifest import TOKENIZER
from .native import NativeRuntime, Timing
from .noise import seeded_noise
from .pipeline import open_named_device
from .schedulers import find_sampler
from .tokenizer import load_tokenizer, token_ids

Progress = Callable[[str, float], None]
"""Receives what is being done, and how much of the whole is, from 0 to 1."""

LOADING, SHADERS, STEPS = 0.1, 0.05, 0.8
"""Shares of the whole that progress gives to the weights, the shaders and the steps; the rest is decoding."""


@dataclass(frozen=True)
class Generated:
    """What was drawn: the file, its size in pixels, the device's key, what was chosen, and seconds for loading and
    drawing.
    """

    path: Path
    width: int
    height: int
    device: str
    scheduler: str
    steps: int
    guidance: float
    seed: int
    load_s: float
    timing: Timing


def _silent(what: str, done: float) -> None:
    pass


def generate(
    bundle: Path,
    prompt: str,
    output: Path,
    *,
    negative_prompt: str = "",
    seed: int = 0,
    steps: int = 20,
    guidance: float = 7.5,
    scheduler: str | None = None,
    device: str = "auto",
    progress: Progress = _silent,
) -> Generated:
    """Draw ``prompt`` into the PNG file ``output``, whose text metadata tells how it was made.

    ``scheduler`` is a name or diffusers class, None for the model's own. A bundle without guidance draws with
    ``guidance`` 1.

    Raises:
        UsageError: a value makes no sense, or ``output`` cannot be written.
        BundleError: the bundle is damaged, or lacks the scheduler or the number of steps.
        DeviceError: no such device, or one that is too small or fails.
    """
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output} is not the name of a PNG file", "end it with .png")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {output.absolute().parent}", "make it first, or choose another with -o")
    if not math.isfinite(guidance):
        raise UsageError(f"{guidance} is no guidance scale", "7.5 is usual; 1 means none")
    opened = Bundle.open(bundle)
    image = opened.manifest.image
    if guidance > 1 and not image.guidance:
        raise UsageError("the bundle was built without guidance", "add --guidance 1, or build one with guidance")
    sampler = opened.default_sampler if scheduler is None else find_sampler(scheduler)
    run = opened.run(sampler, steps)
    noise = seeded_noise(seed, 1, image.latent).repeat(image.batch, axis=0)
    tokenizer = load_tokenizer(opened.read(TOKENIZER))
    texts = [token_ids(tokenizer, opened.manifest.prompt, prompt)] * image.batch
    if image.guidance:
        texts = [token_ids(tokenizer, opened.manifest.prompt, negative_prompt)] * image.batch + texts

    def loading(what: str, done: float) -> None:
        progress(what, LOADING * done if what == "load weights" else LOADING + SHADERS * done)

    def stepping(done: int, calls: int) -> None:
        progress(f"step {done} of {calls}", LOADING + SHADERS + STEPS * done / calls)

    started = time.perf_counter()
    chosen = open_named_device(device)
    with NativeRuntime(opened, chosen, loading) as runtime:
        loaded = time.perf_counter()
        scale = max(1.0, guidance)
        runtime.draw(texts, noise, run, scale, stepping)
        pixels, timing = runtime.pixels()[0, ..., :3], runtime.timing
    progress("done", 1.0)
    result = Generated(
        path=output,
        width=image.width,
        height=image.height,
        device=chosen.key,
        scheduler=sampler.value,
        steps=steps,
        guidance=scale,
        seed=seed,
        load_s=loaded - started,
        timing=timing,
    )
    _save(pixels, result, opened, prompt, negative_prompt)
    return result


def _save(pixels: object, made: Generated, bundle: Bundle, prompt: str, negative_prompt: str) -> None:
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    texts = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "seed": made.seed,
        "steps": made.steps,
        "guidance": made.guidance,
        "scheduler": made.scheduler,
        "model": bundle.manifest.model,
        "device": made.device,
        "software": f"wgtune {bundle.manifest.wgtune}",
    }
    info = PngInfo()
    for key, value in texts.items():
        # International text chunks: a prompt may be in any script.
        info.add_itxt(key, str(value))
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(made.path, pnginfo=info)
    except OSError as error:
        raise UsageError(
            f"cannot write {made.path}: {error.strerror or error}", "choose another file with -o"
        ) from error
