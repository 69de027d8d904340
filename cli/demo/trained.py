"""The demo model's trained weights: half floats beside this module, made by `training` (`make demo-model`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .model import SCHEDULER_CONFIG, make_networks, write_pipeline

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import nn
    from transformers import CLIPTextModel

TRAINED = Path(__file__).parent / "trained_weights"
"""The folder of the weights, their model card and their licence."""

SCHEDULER: dict[str, Any] = {**SCHEDULER_CONFIG, "prediction_type": "v_prediction"}
"""Predicts the velocity, as Stable Diffusion 2.x does: after 1,000 steps of 32 pictures its denoiser missed latents at
times 900, 500 and 100 by 0.44, 0.101 and 0.017 (mean square), one of the noise by 0.55, 0.106 and 0.018."""

_NETWORKS = ("text_encoder", "unet", "vae")


def make_trained_pipeline(folder: Path, trained: Path = TRAINED) -> Path:
    """Write the pipeline with the weights of ``trained`` into ``folder``, created where missing; return ``folder``.

    Raises CaptureError where CLIP's vocabulary is not installed.
    """
    from safetensors.torch import load_file

    networks = make_networks()
    for name, network in zip(_NETWORKS, networks, strict=True):
        network.load_state_dict(load_file(_file(trained, name)))
    return write_pipeline(folder, *networks, scheduler=SCHEDULER)


def write_trained(folder: Path, text_encoder: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
    """Write the networks' weights into ``folder`` as half floats, one file for each."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    networks: tuple[nn.Module, ...] = (text_encoder, unet, vae)
    for name, network in zip(_NETWORKS, networks, strict=True):
        weights = {
            key: value.half().contiguous() for key, value in network.state_dict().items() if value.is_floating_point()
        }
        save_file(weights, _file(folder, name))


def _file(folder: Path, network: str) -> Path:
    return folder / f"{network}.safetensors"
