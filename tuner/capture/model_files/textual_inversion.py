"""Textual inversions: words that were trained into a few vectors, as rows that follow the text encoder's embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....support.errors import CaptureError
from .single_file import check_safetensors

if TYPE_CHECKING:
    import torch

EMBEDDING = "embeddings.token_embedding.weight"
"""Canonical name of CLIP's embedding [tokens, width]."""


@dataclass(frozen=True)
class Word:
    """A word of a prompt, and its vectors [count, width], one for each of the word's tokens."""

    token: str
    vectors: torch.Tensor


def read_word(path: Path, width: int) -> Word:
    """Return the word in a textual inversion as diffusers saves it, whose name in the file it is, or A1111's.

    A1111 names the tensor ``emb_params`` and the word by the file.

    Raises:
        CaptureError: the file cannot be read, can run code, or holds anything else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CaptureError(f"there is no textual inversion {path}", "check the path")
    check_safetensors(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CaptureError(f"cannot read {path}: {error}", "download the file again") from error
    if len(tensors) != 1:
        raise CaptureError(
            f"{path} holds {len(tensors)} tensors, no textual inversion of one text encoder",
            "give a file with one tensor, as diffusers saves it",
        )
    name, tensor = next(iter(tensors.items()))
    vectors = tensor.reshape(1, -1) if tensor.ndim == 1 else tensor
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise CaptureError(
            f"{path} holds a tensor {tuple(tensor.shape)}; the text encoder's vectors have {width} numbers",
            "give a textual inversion that was trained for this kind of model",
        )
    return Word(path.stem if name == "emb_params" else name, vectors)


class WithWords(Mapping[str, "torch.Tensor"]):
    """A text encoder's weights with the vectors of ``words`` behind those of its embedding."""

    def __init__(self, weights: Mapping[str, torch.Tensor], words: Sequence[Word]) -> None:
        self._weights = weights
        self._words = words

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        weight = self._weights[name]
        if name != EMBEDDING:
            return weight
        return torch.cat([weight, *(word.vectors.to(weight.dtype) for word in self._words)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
