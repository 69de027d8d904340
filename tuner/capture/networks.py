"""The networks of a pipeline as PyTorch modules with tensors in and out, without weights on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...support.errors import CaptureError
from ..ir import CaptureOptions, TensorSpec
from .sources import ModelSource, Padding


@dataclass(frozen=True)
class Network:
    """A module that takes the tensors ``inputs`` and returns one tensor for each name in ``outputs``.

    ``prefix`` precedes the checkpoint's parameter names in the module's.
    """

    module: nn.Module
    inputs: list[TensorSpec]
    outputs: list[str]
    prefix: str = "network."

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """Return zeros of the inputs' shapes on the device of the module's parameters."""
        device = next(self.module.parameters()).device
        return tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=device) for spec in self.inputs)


def build_network(source: ModelSource, options: CaptureOptions, stage: str, device: str = "meta") -> Network:
    """Build the network of ``stage``; raises CaptureError where its configuration does not build."""
    build = {"clip": _build_text, "clip2": _build_text, "unet": _build_unet, "vae": _build_vae}[stage]
    try:
        with torch.device(device):
            network = build(source, options, stage)
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise CaptureError(
            f"the configuration of {stage} of {source.name} does not build: {type(error).__name__}: {error}",
            "check its config.json against the installed diffusers and transformers",
        ) from error
    network.module.eval().requires_grad_(False)
    return network


def latent_size(source: ModelSource, options: CaptureOptions) -> tuple[int, int]:
    """Return height and width of the latents.

    Raises:
        CaptureError: the image's size is no multiple of the VAE's factor.
    """
    factor = vae_factor(source)
    native = source.configs.get("unet", {}).get("sample_size")
    if native is None:
        native = int(source.configs.get("vae", {}).get("sample_size", 512)) // factor
    height, width = native if isinstance(native, (list, tuple)) else (native, native)
    for name, pixels in (("height", options.height), ("width", options.width)):
        if pixels is not None and (pixels <= 0 or pixels % factor):
            raise CaptureError(
                f"the image's {name} {pixels} is no multiple of {factor}", f"give a {name} such as {64 * factor}"
            )
    return (
        options.height // factor if options.height else int(height),
        options.width // factor if options.width else int(width),
    )


def vae_factor(source: ModelSource) -> int:
    """Return the width of a latent in pixels; each level of the decoder but the last doubles it."""
    vae = source.configs.get("vae", {})
    channels = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or (0,) * 4
    return 2 ** (len(channels) - 1)


_MASKED = 1e4
"""Taken from a masked score: far more than any score, and a half float."""


class _TextEncoder(nn.Module):
    """Token ids [1, length] → the text embedding that the UNet takes [1, length, width]."""

    def __init__(self, network: nn.Module, penultimate: bool, pooled: bool, padding: Padding | None) -> None:
        super().__init__()
        self.network: Any = network
        self.penultimate = penultimate
        self.pooled = pooled
        self.padding = padding

    def _attention_mask(self, token_ids: torch.Tensor, padding: Padding) -> torch.Tensor:
        """Return what is added to scores [1, 1, length, length]: none sees padding, CLIP's none what comes after it.

        The tokenizer's mask follows from the ids: the end marker closes a prompt, and what comes behind it is padding.
        Where padding is the end marker too, the first of those at the end is the marker.
        """
        # Floats throughout: between kernels WGSL has neither truth values nor integers of 64 bits.
        positions = torch.arange(token_ids.shape[1], device=token_ids.device, dtype=torch.float32)
        not_before = (positions + float(padding.ends) >= positions[:, None]).float()
        words = (token_ids != padding.pad).float()
        seen = (not_before * words[:, None, :]).sum(-1).clamp(0.0, 1.0)[:, None, None, :]
        rows = torch.ones_like(not_before)
        causal = rows.tril() if self.network.config.model_type == "clip_text_model" else rows
        return (seen * causal - 1.0) * _MASKED

    def forward(self, token_ids: torch.Tensor) -> Any:
        if self.padding is not None:
            mask = self._attention_mask(token_ids, self.padding)
            return self.network(token_ids, attention_mask=mask, return_dict=True)[0]
        if not self.penultimate:
            return self.network(token_ids, return_dict=True)[0]
        output = self.network(token_ids, output_hidden_states=True, return_dict=True)
        embedding = output.hidden_states[-2]
        if not self.pooled:
            return embedding
        # The end marker has the largest id of all tokens: argmax finds its first occurrence.
        end = token_ids.argmax(dim=-1)
        state = torch.index_select(output.last_hidden_state, 1, end)[:, 0]
        return embedding, self.network.text_projection(state)


def _build_text(source: ModelSource, options: CaptureOptions, stage: str) -> Network:
    import transformers

    config = source.configs[stage]
    names = config.get("architectures") or ["CLIPTextModel"]
    model_class = getattr(transformers, names[0], None)
    if model_class is None:
        raise CaptureError(f"{stage} is a {names[0]}, which the installed transformers does not have")
    settings = {
        key: value
        for key, value in config.items()
        if key not in ("architectures", "model_type", "torch_dtype", "dtype")
    }
    model = model_class._from_config(model_class.config_class(**settings), attn_implementation="sdpa")
    two_encoders = "clip2" in source.configs
    pooled = two_encoders and hasattr(model, "text_projection")
    module = _TextEncoder(model, two_encoders, pooled, source.padding)
    outputs = ["text_embedding", "pooled_text"] if pooled else ["text_embedding"]
    return Network(module, [TensorSpec("token_ids", (1, source.token_length), "int32")], outputs)


class _Unet(nn.Module):
    """Latents, timestep, context and the configuration's further inputs → predicted noise."""

    def __init__(self, network: nn.Module, extra: list[str]) -> None:
        super().__init__()
        self.network: Any = network
        self.extra = extra

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor, *extra: torch.Tensor
    ) -> Any:
        given = dict(zip(self.extra, extra, strict=True))
        direct = {name: given.pop(name) for name in ("class_labels", "timestep_cond") if name in given}
        added = {"added_cond_kwargs": given} if given else {}
        return self.network(latents, timestep, context, return_dict=False, **direct, **added)[0]


def _build_unet(source: ModelSource, options: CaptureOptions, stage: str) -> Network:
    from diffusers import UNet2DConditionModel

    config = source.configs[stage]
    name = config.get("_class_name", "UNet2DConditionModel")
    if name != "UNet2DConditionModel":
        raise CaptureError(f"{stage} is a {name}; wgtune knows UNet2DConditionModel")
    model = UNet2DConditionModel.from_config(config)
    batch = options.batch * (2 if options.guidance else 1)
    height, width = latent_size(source, options)
    settings = model.config
    inputs = [
        TensorSpec("latents", (batch, int(settings.in_channels), height, width), "float32"),
        TensorSpec("timestep", (), "float32"),
        TensorSpec("context", (batch, source.token_length, _context_width(settings)), "float32"),
    ]
    extra = _extra_inputs(settings, batch, source)
    return Network(_Unet(model, [spec.name for spec in extra]), [*inputs, *extra], ["noise"])


def _context_width(settings: Any) -> int:
    if settings.encoder_hid_dim:
        return int(settings.encoder_hid_dim)
    width = settings.cross_attention_dim
    return int(width[0] if isinstance(width, (list, tuple)) else width)


def _time_width(settings: Any) -> int:
    factor = 2 if settings.time_embedding_type == "fourier" else 4
    return int(settings.time_embedding_dim or settings.block_out_channels[0] * factor)


def _extra_inputs(settings: Any, batch: int, source: ModelSource) -> list[TensorSpec]:
    """Return the inputs beyond the usual three that a UNet's configuration requires.

    See ``UNet2DConditionModel.forward`` in diffusers.
    """
    extra = []
    projected = settings.projection_class_embeddings_input_dim
    if settings.class_embed_type == "timestep":
        extra.append(TensorSpec("class_labels", (batch,), "float32"))
    elif settings.class_embed_type == "identity":
        extra.append(TensorSpec("class_labels", (batch, _time_width(settings)), "float32"))
    elif settings.class_embed_type in ("projection", "simple_projection"):
        extra.append(TensorSpec("class_labels", (batch, int(projected)), "float32"))
    elif settings.num_class_embeds:
        extra.append(TensorSpec("class_labels", (batch,), "int32"))
    if settings.time_cond_proj_dim:
        extra.append(TensorSpec("timestep_cond", (batch, int(settings.time_cond_proj_dim)), "float32"))
    if settings.addition_embed_type == "text_time":
        time_width = int(settings.addition_time_embed_dim)
        text_width = int(source.configs.get("clip2", {}).get("projection_dim", int(projected) - 6 * time_width))
        extra.append(TensorSpec("text_embeds", (batch, text_width), "float32"))
        extra.append(TensorSpec("time_ids", (batch, (int(projected) - text_width) // time_width), "float32"))
    if settings.addition_embed_type in ("image", "text_image") or settings.encoder_hid_dim_type in (
        "image_proj",
        "text_image_proj",
    ):
        extra.append(TensorSpec("image_embeds", (batch, _context_width(settings)), "float32"))
    return extra


class _Decoder(nn.Module):
    """Scaled latents → image with values from 0 to 1."""

    def __init__(self, network: nn.Module, config: Any) -> None:
        super().__init__()
        self.network: Any = network
        self.scale = float(config.get("scaling_factor") or 1.0)
        self.shift = float(config.get("shift_factor") or 0.0)
        self.mean, self.std = config.get("latents_mean"), config.get("latents_std")

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        if self.mean and self.std:
            mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
            latents = latents * (std / self.scale) + mean
        elif self.shift:
            latents = latents / self.scale + self.shift
        else:
            latents = latents / self.scale
        picture = self.network.decode(latents, return_dict=False)[0]
        return (picture / 2 + 0.5).clamp(0, 1)


def _build_vae(source: ModelSource, options: CaptureOptions, stage: str) -> Network:
    import diffusers

    config = source.configs[stage]
    name = config.get("_class_name", "AutoencoderKL")
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        raise CaptureError(f"{stage} is a {name}; wgtune knows AutoencoderKL and AutoencoderTiny")
    model = getattr(diffusers, name).from_config(config)
    height, width = latent_size(source, options)
    channels = int(model.config.latent_channels)
    latents = TensorSpec("latents", (options.batch, channels, height, width), "float32")
    return Network(_Decoder(model, model.config), [latents], ["image"])
