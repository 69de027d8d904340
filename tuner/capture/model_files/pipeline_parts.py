"""The class and parts that a pipeline's ``model_index.json`` names: another architecture is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....support.errors import CaptureError

WORKS = "Stable Diffusion 1.x and 2.x, SDXL and their fine-tunes (UNet2DConditionModel with AutoencoderKL) work"

_CAPTURED = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL", "AutoencoderTiny")}
"""The classes of the networks that `networks` builds."""

_RUNTIMES_OWN = {"tokenizer", "tokenizer_2", "scheduler", "text_encoder", "text_encoder_2", *_CAPTURED}
_LEFT_OUT = {"safety_checker", "feature_extractor", "image_encoder"}
"""Parts of a pipeline without which it draws the same picture."""


def check_architecture(name: str, index: Mapping[str, Any]) -> None:
    """Raise CaptureError where ``index``, a pipeline's ``model_index.json``, is of networks that are not captured.

    That is one without the UNet and VAE that are, or one with further parts that shape its pictures, such as a
    transformer, a prior or a ControlNet.
    """
    parts = _parts(index)
    pipeline = index.get("_class_name", "pipeline")
    others = [f"{part} ({kind})" for part, kind in parts.items() if part not in _RUNTIMES_OWN | _LEFT_OUT]
    wrong = [f"{part} ({parts[part]})" for part, known in _CAPTURED.items() if parts.get(part, known[0]) not in known]
    lacking = [part for part in _CAPTURED if part not in parts] if parts else []
    if wrong or lacking:
        said = [*wrong, *others] or [f"no {part}" for part in lacking]
        raise CaptureError(f"{name} is a {pipeline}, another architecture: it has {', '.join(said)}", WORKS)
    if others:
        raise CaptureError(
            f"{name} is a {pipeline} with {', '.join(others)}, which wgtune does not run",
            f"save the pipeline without it, as a StableDiffusionPipeline of the same parts; {WORKS}",
        )


def left_out(index: Mapping[str, Any]) -> list[str]:
    """Return the parts that no bundle has, each with its class, as ``model_index.json`` names them."""
    return [f"{part} ({kind})" for part, kind in _parts(index).items() if part in _LEFT_OUT]


def _parts(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the class of each part that the pipeline has; one that is switched off is [null, null]."""
    return {
        part: str(value[1])
        for part, value in index.items()
        if not part.startswith("_") and isinstance(value, list) and len(value) == 2 and value[1] is not None
    }
