"""Small networks of each kind as diffusers configures them, and captures of them that run beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stage_runner import StageRunner

from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.networks import build_network
from wgtune.tuner.capture.sources import ModelSource, canonical_weight_name
from wgtune.tuner.capture.weights.transform import transform_weights
from wgtune.tuner.ir import Capture, CaptureOptions

UNET: dict[str, Any] = {
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}
SMALL_UNET = {
    **UNET,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "block_out_channels": (16,),
    "mid_block_type": None,
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (16, 16),
    "norm_num_groups": 4,
    "sample_size": 16,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
    "latent_channels": 4,
}
TEXT: dict[str, Any] = {
    "architectures": ["CLIPTextModel"],
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 11,
    "eos_token_id": 99,
}
BERT: dict[str, Any] = {
    "architectures": ["BertModel"],
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def source_of(**configs: dict[str, Any]) -> ModelSource:
    return ModelSource("tiny", None, configs, token_length=11)


WIDE_UNET: dict[str, Any] = {
    **UNET,
    "cross_attention_dim": 32,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "block_out_channels": (32,),
    "mid_block_type": None,
}
"""With sums of whole groups of quantised weights."""


def assert_equals_pytorch(
    source: ModelSource, stage: str, options: CaptureOptions | None = None, tolerance: float = 1e-4
) -> Capture:
    """Capture without weights, then run on the CPU with random ones, beside PyTorch."""
    options = options or CaptureOptions()
    capture = capture_model(source, options, [stage], use_cache=False)
    torch.manual_seed(0)
    network = build_network(source, options, stage, device="cpu")
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inputs = [
        torch.randint(0, 5, spec.shape, dtype=torch.int32)
        if spec.dtype == "int32"
        # Euler's timesteps lie between the whole ones.
        else (torch.tensor(321.5) if spec.name == "timestep" else torch.randn(spec.shape))
        for spec in network.inputs
    ]
    with torch.no_grad():
        expected = network.module(*inputs)
    weights = {
        canonical_weight_name(stage, name.removeprefix(network.prefix)): value
        for name, value in network.module.named_parameters()
    }
    captured = capture.stages[stage]
    results = StageRunner(capture, stage)([x.numpy() for x in inputs], list(transform_weights(captured, weights)))
    for result, tensor in zip(results, expected if isinstance(expected, tuple) else (expected,), strict=True):
        np.testing.assert_allclose(result, tensor.numpy(), rtol=tolerance, atol=tolerance)
    return capture
