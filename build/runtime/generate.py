"""Draws one image from a bundle into a PNG file, for `wgtune generate --prompt`."""

from __future__ import annotations

from pathlib import Path

from ...devices.discovery.discovery import find_device
from ...support.errors import UsageError
from ..format.reader import Bundle
from .painter import GeneratedImage, GenerateOptions, Painter, ProgressCallback, resolve_options
from .torch_noise import check_seed

LOADING, SHADERS, STEPS = 0.1, 0.05, 0.8
"""Shares of the progress for weights, shaders and steps; the rest is decoding."""


def _silent(what: str, done: float) -> None:
    pass


def generate(
    bundle: Path,
    prompt: str,
    output: Path,
    options: GenerateOptions | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: ProgressCallback = _silent,
) -> GeneratedImage:
    """Draw ``prompt`` into the PNG file ``output``, whose text metadata says how it was made.

    Args:
        bundle: the bundle's folder.
        prompt: what to draw.
        output: the PNG file.
        options: steps, guidance and so on; a bundle built without guidance needs ``guidance`` 1.
        seed: as torch's CPU generator takes it.
        device: one of `wgtune devices`, by key, number or part of its name.
        progress: receives the current step and the share of the whole that is done.

    Raises:
        UsageError: an option has an impossible value, or ``output`` cannot be written.
        BundleError: the bundle is damaged, or lacks the scheduler or the number of steps.
        DeviceError: the device is missing, too small or fails.
    """
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output} is not the name of a PNG file", "end it with .png")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {output.absolute().parent}", "make it first, or choose another with -o")
    check_seed(seed)
    opened = Bundle.open(bundle)
    settings = resolve_options(opened, options or GenerateOptions())

    def loading(what: str, done: float) -> None:
        progress(what, LOADING * done if what == "load weights" else LOADING + SHADERS * done)

    def stepping(done: int, calls: int) -> None:
        progress(f"step {done} of {calls}", LOADING + SHADERS + STEPS * done / calls)

    with Painter(opened, find_device(device), settings, loading) as painter:
        made = painter.draw(prompt, seed, output, stepping)
    progress("done", 1.0)
    return made
