"""Stable Diffusion 1.x in one file, by the keys of the original implementation (CompVis/stable-diffusion)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_key(name: str, layers: int, attends: list[bool]) -> str:
    """Blocks of one list are numbered on through the levels; each level ends in its change of size."""
    for ours, theirs in ENDS.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, number, rest = found.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{inner(kind, rest)}"
    kind_of, level, kind, number, rest = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name).groups()
    first = int(level) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{1 + first + layers}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if attends[int(level)] else 1}.{rest}"
    place = f"input_blocks.{1 + first + int(number)}" if kind_of == "down" else f"output_blocks.{first + int(number)}"
    return f"{place}.{1 if kind == 'attentions' else 0}.{inner(kind, rest)}"


def inner(kind: str, rest: str) -> str:
    name, _, last = rest.rpartition(".")
    return f"{RESNET[name]}.{last}" if kind == "resnets" else rest


def vae_key(name: str, levels: int) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(
        r"mid_block\.attentions\.0\.(group_norm|to_[qkv]|to_out\.0)", lambda m: f"mid.attn_1.{ATTENTION[m[1]]}", name
    )
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def write_single_file(pipeline: Any, path: Path) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    config = pipeline.unet.config
    attends = ["CrossAttn" in kind for kind in config.up_block_types]
    for name, value in pipeline.unet.state_dict().items():
        tensors["model.diffusion_model." + unet_key(name, config.layers_per_block, attends)] = value
    for name, value in pipeline.vae.state_dict().items():
        key = vae_key(name, len(pipeline.vae.config.up_block_types))
        # The attention's projections are convolutions there.
        convolved = ".attn_1." in key and value.ndim == 2
        tensors["first_stage_model." + key] = value[..., None, None] if convolved else value
    for name, value in pipeline.text_encoder.state_dict().items():
        tensors["cond_stage_model.transformer.text_model." + name.removeprefix("text_model.")] = value
    tensors["alphas_cumprod"] = torch.zeros(1000)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    return path
