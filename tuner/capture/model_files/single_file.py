"""A whole model in one safetensors file, as trained outside diffusers: told by its keys, converted by diffusers.

Keys are those of the original implementations: ``model.diffusion_model.…`` for the UNet, ``first_stage_model.…`` for
the VAE, ``cond_stage_model.…`` or ``conditioner.…`` for text encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ....support.errors import CaptureError
from .git_lfs import check_not_pointer
from .pipeline_parts import WORKS

if TYPE_CHECKING:
    import torch

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_UNET = "model.diffusion_model.input_blocks.0.0.weight"


@dataclass(frozen=True)
class Kind:
    """The configuration of a kind: ``builtin`` among wgtune's own, "" for none; ``repo_id`` on the hub."""

    builtin: str
    repo_id: str


_KINDS = {
    "v1": Kind("sd-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "v2": Kind("", "stabilityai/stable-diffusion-2-1"),
    "xl_base": Kind("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
}
"""By diffusers' name of the kind (``infer_diffusers_model_type``)."""


def check_safetensors(path: Path) -> None:
    """Raise CaptureError where ``path`` is no safetensors file; one that pickles is not even opened."""
    if path.suffix.lower() in PICKLES:
        raise CaptureError(
            f"{path} is not read: a {path.suffix} file can run code when it is opened",
            "use the model's .safetensors file, or convert it where you trust it: diffusers' "
            "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)",
        )
    if path.suffix.lower() != ".safetensors":
        raise CaptureError(f"{path} is no model", "give a diffusers folder or a .safetensors file")
    check_not_pointer(path)


def find_kind(path: Path) -> Kind:
    """Return the kind of a checkpoint by its keys; raise CaptureError for what is not Stable Diffusion or SDXL."""
    import torch
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type
    from safetensors import SafetensorError, safe_open

    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CaptureError(f"cannot read {path}: {error}", "download the file again") from error
    found = infer_diffusers_model_type({n: torch.empty(shape, device="meta") for n, shape in shapes.items()})
    # diffusers takes what it does not recognise for the first version.
    if found in _KINDS and _UNET in shapes:
        return _KINDS[found]
    if any(".lora_" in name for name in shapes):
        raise CaptureError(f"{path} is a LoRA, not a whole model", "give the model that it was trained for")
    said = f"a checkpoint of the kind {found}, another architecture" if found != "v1" else "no whole checkpoint"
    raise CaptureError(f"{path} is {said}: it has no {_UNET}" if found == "v1" else f"{path} is {said}", WORKS)


def convert_stage(path: Path, stage: str, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of ``stage`` by the names that diffusers and transformers give them, mapped into memory.

    Raises CaptureError where the file cannot be read or has no such stage.
    """
    from diffusers.loaders import single_file_utils
    from safetensors import SafetensorError, safe_open

    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CaptureError(f"cannot read {path}: {error}", "download the file again") from error
    try:
        if stage == "unet":
            return single_file_utils.convert_ldm_unet_checkpoint(
                tensors, _with_defaults("UNet2DConditionModel", config)
            )
        if stage == "vae":
            return single_file_utils.convert_ldm_vae_checkpoint(tensors, _with_defaults("AutoencoderKL", config))
        prefix = "conditioner.embedders.1.model." if stage == "clip2" else "cond_stage_model.model."
        if any(name.startswith(prefix) for name in tensors):
            model = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
            return single_file_utils.convert_open_clip_checkpoint(model, tensors, prefix=prefix)
        return single_file_utils.convert_ldm_clip_checkpoint(tensors)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise CaptureError(
            f"{path} does not fit the configuration of {stage}: {type(error).__name__}: {error}",
            "give the folder of its configuration with --config",
        ) from error


def _with_defaults(name: str, config: Mapping[str, Any]) -> Any:
    """Return a configuration with diffusers' values for what it leaves out."""
    import diffusers
    import torch

    with torch.device("meta"):
        return getattr(diffusers, name).from_config(dict(config)).config
