"""A small Stable Diffusion pipeline with random weights, in the folder layout that diffusers saves.

It has all structural elements (cross attention, down- and upsampling, a middle block, the time embedding, the decoder's
attention) and CLIP's vocabulary, and draws an image on two CPU cores in seconds.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...support.errors import CaptureError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

VOCABULARY_PACKAGE = "open_clip"
VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
VOCABULARY_SIZE = 49408
TOKEN_LENGTH = 77

TEXT_CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 32,
    "intermediate_size": 32,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": TOKEN_LENGTH,
    "hidden_act": "quick_gelu",
    "bos_token_id": VOCABULARY_SIZE - 2,
    "eos_token_id": VOCABULARY_SIZE - 1,
    "pad_token_id": VOCABULARY_SIZE - 1,
}
UNET_CONFIG: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
}
VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 16, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 128,
    "scaling_factor": 0.18215,
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    # No setting of PNDM, but part of Stable Diffusion's configuration: DDIM made from it would clip otherwise.
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def make_networks() -> tuple[CLIPTextModel, UNet2DConditionModel, AutoencoderKL]:
    """Make the text encoder, the denoiser and the autoencoder, with the weights that torch's own generator draws."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text_encoder = CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG))
    return text_encoder, UNet2DConditionModel(**UNET_CONFIG), AutoencoderKL(**VAE_CONFIG)


def make_demo_pipeline(folder: Path, seed: int = 1) -> Path:
    """Write the pipeline with random weights into ``folder``, which is created where missing, and return ``folder``.

    The same ``seed`` gives the same weights. Raises CaptureError where CLIP's vocabulary is not installed.
    """
    import torch

    from .weights import colour, pass_latents_through, randomize

    generator = torch.Generator().manual_seed(seed)
    text_encoder, unet, vae = make_networks()
    randomize(text_encoder, generator)
    randomize(unet, generator)
    pass_latents_through(unet, generator)
    randomize(vae, generator)
    colour(vae, generator)
    return write_pipeline(folder, text_encoder, unet, vae)


def write_pipeline(
    folder: Path,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    scheduler: dict[str, Any] | None = None,
) -> Path:
    """Write the networks as a pipeline into ``folder``, which is created where missing, and return ``folder``.

    ``scheduler`` is PNDM's configuration, by default that of Stable Diffusion 1.x.

    Raises CaptureError where CLIP's vocabulary is not installed.
    """
    from diffusers import PNDMScheduler
    from transformers.utils import logging

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_clip_tokenizer(folder / "tokenizer")
    logging.disable_progress_bar()  # for files that are written in no time
    for name, network in (("text_encoder", text_encoder), ("unet", unet), ("vae", vae)):
        network.eval().save_pretrained(folder / name)
    PNDMScheduler.from_config(scheduler or SCHEDULER_CONFIG).save_pretrained(folder / "scheduler")
    write_model_index(folder)
    return folder


def write_model_index(folder: Path) -> None:
    """Write ``model_index.json`` of a pipeline of Stable Diffusion 1.x with the scheduler PNDM."""
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def write_clip_tokenizer(folder: Path) -> None:
    """Write CLIP's tokenizer in both formats: ``tokenizer.json``, and ``vocab.json`` with ``merges.txt``.

    The vocabulary follows from the list of merges as in OpenAI's CLIP (``simple_tokenizer.py``): 256 byte symbols, 256
    that end a word, one entry for each merge, and the two markers. Raises CaptureError where the list is not installed.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    merges = _read_merges()
    symbols = _byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + [left + right for left, right in merges] + [BOS, EOS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != VOCABULARY_SIZE:
        raise CaptureError(
            f"CLIP's vocabulary should have {VOCABULARY_SIZE} entries, the installed list gives {len(vocabulary)}",
            "pip install --no-deps --force-reinstall open_clip_torch",
        )
    bpe = models.BPE(
        vocab=vocabulary, merges=merges, unk_token=EOS, continuing_subword_prefix="", end_of_word_suffix="</w>"
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (EOS, vocabulary[EOS]), (BOS, vocabulary[BOS]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([BOS, EOS])

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKEN_LENGTH, "do_lower_case": True, **special},
    )


def _read_merges() -> list[tuple[str, str]]:
    # Not imported: the package is installed without its dependencies, only for this file.
    spec = importlib.util.find_spec(VOCABULARY_PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    path = next((p for p in (Path(place) / VOCABULARY_FILE for place in places) if p.is_file()), None)
    if path is None:
        raise CaptureError(
            f"CLIP's vocabulary ({VOCABULARY_FILE} of the package open_clip_torch) is not installed",
            "pip install --no-deps open_clip_torch",
        )
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    # CLIP uses only the first merges of the file: as many as its vocabulary holds beside 512 symbols and two markers.
    return [(left, right) for left, right in (line.split() for line in lines[1 : VOCABULARY_SIZE - 512 - 2 + 1])]


def _byte_symbols() -> list[str]:
    """Return a printable character for each byte in the order of CLIP's vocabulary: first the printable bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
