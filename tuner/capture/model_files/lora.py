"""LoRA files, merged into a model's weights when these are read: W + scale · alpha / rank · B A.

Names of other trainers are converted by diffusers. The sum is that of Hu et al., "LoRA: Low-Rank Adaptation of Large
Language Models" (2021); a convolution is the product of its matrices over the flattened kernel.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....support.errors import CaptureError, UsageError, first_line
from .single_file import check_safetensors

if TYPE_CHECKING:
    import torch

_STAGES = {"unet": "unet", "text_encoder": "clip", "text_encoder_2": "clip2"}
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Layer:
    """What is added to one weight: ``factor`` times the product of ``b`` [out, rank, …] and ``a`` [rank, in, …]."""

    a: torch.Tensor
    b: torch.Tensor
    factor: float


@dataclass(frozen=True)
class Lora:
    """A file, its ``scale``, and its layers by stage and the canonical name of the weight that each changes."""

    name: str
    sha256: str
    scale: float
    layers: Mapping[str, Mapping[str, Layer]]

    def unmatched(self, weights: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the layers, as ``stage name``, whose weight is not among ``weights`` by stage."""
        return [
            f"{stage} {name.removesuffix('.weight')}"
            for stage, layers in self.layers.items()
            for name in layers
            if name not in weights.get(stage, {})
        ]


def parse_spec(spec: str) -> tuple[Path, float]:
    """Return the file and scale of ``FILE[:SCALE]``; raise UsageError for a scale that is no finite number."""
    path, colon, number = spec.rpartition(":")
    if not colon or Path(spec).is_file():
        return Path(spec).expanduser(), 1.0
    try:
        scale = float(number)
    except ValueError:
        return Path(spec).expanduser(), 1.0  # a drive's colon, or a file that is not there
    if not math.isfinite(scale):
        raise UsageError(f"a LoRA cannot have the scale {number}", "give FILE:SCALE, such as style.safetensors:0.8")
    return Path(path).expanduser(), scale


def read_lora(
    path: Path, scale: float, unet: Mapping[str, Any], two_encoders: bool, canonical: Callable[[str, str], str]
) -> Lora:
    """Read a LoRA in any style of names that diffusers reads (diffusers, PEFT, kohya).

    Args:
        path: a safetensors file.
        scale: by which the whole file counts.
        unet: the configuration of the model's UNet, by which kohya's numbers of blocks are converted.
        two_encoders: whether the model is SDXL.
        canonical: see `sources.canonical_weight_name`.

    Raises:
        CaptureError: the file cannot be read, can run code, or holds what is no LoRA of linear layers and convolutions.
    """
    import diffusers

    if not path.is_file():
        raise CaptureError(f"there is no LoRA file {path}", "check the path")
    check_safetensors(path)
    pipeline = diffusers.StableDiffusionXLPipeline if two_encoders else diffusers.StableDiffusionPipeline
    # An object, because diffusers reads the fields that it needs.
    settings = diffusers.configuration_utils.FrozenDict({"layers_per_block": 2, **unet})
    try:
        names = _names(path)
        if odd := [name for name in names if "dora_scale" in name or ".hada_" in name or ".lokr_" in name]:
            raise CaptureError(f"{path} is a DoRA, LoHa or LoKr ({odd[0]}), which is not merged", "give a LoRA")
        found, alphas, metadata = pipeline.lora_state_dict(
            str(path.parent),
            weight_name=path.name,
            local_files_only=True,
            use_safetensors=True,
            unet_config=settings,
            return_lora_metadata=True,
        )
    except CaptureError:
        raise
    except Exception as error:  # the conversion of foreign names fails in many ways
        raise CaptureError(f"cannot read the LoRA {path}: {first_line(error):.200}") from error
    layers: dict[str, dict[str, Layer]] = {}
    rest = {name: tensor for name, tensor in found.items() if name.split(".")[0] not in _STAGES}
    if rest or not found:
        raise CaptureError(
            f"{path} holds no LoRA of this kind of model: {', '.join(list(rest)[:2]) or 'it is empty'}",
            "give a LoRA for Stable Diffusion in diffusers', PEFT's or kohya's names",
        )
    for component, stage in _STAGES.items():
        own = _of_component(found, component)
        if own:
            factors = _Factors(component, alphas or {}, metadata or {})
            made = _layers(path, component, own, factors)
            layers[stage] = {canonical(stage, f"{name}.weight"): layer for name, layer in made.items()}
    return Lora(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), scale, layers)


class Merged(Mapping[str, "torch.Tensor"]):
    """A stage's weights with LoRAs merged into them, each when it is read, in float32."""

    def __init__(self, weights: Mapping[str, torch.Tensor], loras: Sequence[Lora], stage: str) -> None:
        self._weights = weights
        self._loras = [(lora.scale, lora.layers.get(stage, {})) for lora in loras]

    def __getitem__(self, name: str) -> torch.Tensor:
        weight = self._weights[name]
        for scale, layers in self._loras:
            if layer := layers.get(name):
                product = (layer.b.flatten(1).float() @ layer.a.flatten(1).float()) * (scale * layer.factor)
                if product.numel() != weight.numel() or product.shape[0] != weight.shape[0]:
                    raise CaptureError(
                        f"a LoRA changes {name} by {tuple(product.shape)}, the weight is {tuple(weight.shape)}",
                        "give a LoRA that was trained for this model",
                    )
                weight = weight.float() + product.reshape(weight.shape)
        return weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class _Factors:
    """alpha / rank of a component's layers: of kohya's alphas by layer, or of PEFT's configuration in the file."""

    def __init__(self, component: str, alphas: Mapping[str, float], metadata: Mapping[str, Any]) -> None:
        # An alpha is named as the matrix A of its layer, or as the layer alone.
        named = {name.removesuffix(".alpha"): alpha for name, alpha in alphas.items()}
        self._alphas = {name.partition(".lora_A")[0]: alpha for name, alpha in _of_component(named, component).items()}
        config = {
            name.removeprefix(f"{component}."): value
            for name, value in metadata.items()
            if name.startswith(f"{component}.")
        }
        self._alpha, self._pattern = config.get("lora_alpha"), config.get("alpha_pattern") or {}
        self._rank_stabilised = bool(config.get("use_rslora"))

    def of(self, name: str, rank: int) -> float:
        """Return the factor of a layer; 1 where the file says nothing."""
        if name in self._alphas:
            return self._alphas[name] / rank
        alpha = next(
            (value for key, value in self._pattern.items() if f".{name}".endswith(f".{key.lstrip('^')}")), self._alpha
        )
        if alpha is None:
            return 1.0
        return float(alpha) / (math.sqrt(rank) if self._rank_stabilised else rank)


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _of_component(named: Mapping[str, Any], component: str) -> dict[str, Any]:
    """Return what belongs to a component, by PEFT's names within it."""
    from diffusers.utils import state_dict_utils

    own = {n.removeprefix(f"{component}."): value for n, value in named.items() if n.startswith(f"{component}.")}
    if component == "unet":
        return state_dict_utils.convert_unet_state_dict_to_peft(own)
    for kind in (state_dict_utils.StateDictType.DIFFUSERS_OLD, state_dict_utils.StateDictType.DIFFUSERS):
        own = state_dict_utils.convert_state_dict_to_peft(own, original_type=kind)
    return own


def _layers(path: Path, component: str, tensors: Mapping[str, torch.Tensor], factors: _Factors) -> dict[str, Layer]:
    modules = {name.removesuffix(_A) for name in tensors if name.endswith(_A)}
    odd = [n for n in tensors if n.removesuffix(_A) not in modules and n.removesuffix(_B) not in modules]
    odd += [f"{module}{_B}" for module in modules if module + _B not in tensors]
    if odd:
        raise CaptureError(
            f"{path} holds more than pairs of matrices in {component}: {odd[0]}",
            "merge it with diffusers (load_lora_weights, fuse_lora) and save the pipeline",
        )
    return {
        module: Layer(tensors[module + _A], tensors[module + _B], factors.of(module, tensors[module + _A].shape[0]))
        for module in modules
    }
