"""Random weights of the demo model, chosen so that an image has smooth patches of colour instead of grey noise.

Nothing is trained. The denoiser has a path that passes the latents through, so that fine noise is removed first. What
the random layers add depends on the prompt, and stays in the image as broad shapes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

_BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
_BROAD, _FINE = 1.4, 0.35
_EMBEDDING_SPREAD = 0.02
"""Standard deviation of the embedding tables, as transformers initialises CLIP's (``initializer_range``)."""
_LATENTS = 4
_PASSED = 4 * _LATENTS
"""The first channels of the denoiser's outer level: the latents, their negative, and both again, blurred."""

_NOISE_SHARE = 1.12
"""Share of the normalised latents predicted as noise; a total just under 1 leaves latents of about unit size."""
_SMOOTH_SHARE = -0.3
"""The same for the blurred latents; it is negative, so that smooth parts stay and fine noise is removed first."""
_FEATURE_SHARE = 0.25
"""Weight of the random layers, and with them of the prompt, in the prediction."""


def randomize(network: nn.Module, generator: torch.Generator) -> None:
    """Give every layer of ``network`` random weights that keep activations at about unit size.

    Convolutions of 3 × 3 are random mixes of channels, mostly blurred, so that structures stay broad. Attention
    averages over many positions. With projections twice as large it would select single positions, and the selection
    depends on rounding: PyTorch's images in single and double precision then differed by 94/255.
    """

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                mix = draw(layer.out_channels, layer.in_channels, 1, 1) / math.sqrt(layer.in_channels)
                if layer.kernel_size == (3, 3):
                    mix = _BROAD * mix * _BLUR + _FINE * draw(*layer.weight.shape) / math.sqrt(9 * layer.in_channels)
                layer.weight.copy_(mix)
            elif isinstance(layer, nn.Linear):
                layer.weight.copy_(draw(*layer.weight.shape) / math.sqrt(layer.in_features))
            elif isinstance(layer, nn.Embedding):
                layer.weight.copy_(draw(*layer.weight.shape) * _EMBEDDING_SPREAD)
            elif isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
                layer.weight.fill_(1.0)
            bias = getattr(layer, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.copy_(0.1 * draw(*bias.shape))


def pass_latents_through(unet: UNet2DConditionModel, generator: torch.Generator) -> None:
    """Make the denoiser predict the latents plus the output of its random layers.

    The path is the outermost skip connection: it starts after ``conv_in`` and ends in the last block's shortcut, so it
    passes one normalisation and one SiLU. A pair of channels x and −x passes the SiLU: silu(x) − silu(−x) = x.
    """
    centre = torch.zeros(3, 3)
    centre[1, 1] = 1.0
    last = unet.up_blocks[-1].resnets[-1]
    width = unet.conv_in.out_channels
    with torch.no_grad():
        unet.conv_in.weight[:_PASSED] = 0.0
        unet.conv_in.bias[:_PASSED] = 0.0
        shortcut = last.conv_shortcut
        shortcut.weight[:_PASSED] = 0.0
        shortcut.bias[:_PASSED] = 0.0
        last.conv2.weight[:_PASSED] = 0.0
        last.conv2.bias[:_PASSED] = 0.0
        unet.conv_norm_out.bias[:_PASSED] = 0.0
        unet.conv_out.bias.zero_()
        features = torch.randn((_LATENTS, width - _PASSED, 1, 1), generator=generator)
        unet.conv_out.weight[:, :_PASSED] = 0.0
        unet.conv_out.weight[:, _PASSED:] = features * _BLUR * _FEATURE_SHARE / math.sqrt(width - _PASSED)
        for latent in range(_LATENTS):
            for pair, (kernel, share) in enumerate([(centre, _NOISE_SHARE), (_BLUR, _SMOOTH_SHARE)]):
                for half, sign in enumerate((1.0, -1.0)):
                    channel = (2 * pair + half) * _LATENTS + latent
                    unet.conv_in.weight[channel, latent] = sign * kernel
                    shortcut.weight[channel, width + channel] = 1.0
                    unet.conv_out.weight[latent, channel] = sign * share * centre


def colour(vae: AutoencoderKL, generator: torch.Generator, contrast: float = 0.3) -> None:
    """Make the decoder's last layer map its channels to red, green and blue around a middle grey.

    The three directions are orthogonal to each other and to the mean of the channels, which is positive after SiLU.
    """
    width = vae.decoder.conv_out.in_channels
    start = torch.cat([torch.ones(width, 1), torch.randn((width, 3), generator=generator)], dim=1)
    directions = torch.linalg.qr(start)[0][:, 1:]
    with torch.no_grad():
        vae.decoder.conv_out.weight.copy_(directions.T[:, :, None, None] * _BLUR * contrast * math.sqrt(width))
        vae.decoder.conv_out.bias.zero_()
