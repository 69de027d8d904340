"""The weight files of one component: which of a folder's files to read, and their tensors, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....support.errors import CaptureError
from ..model_files.git_lfs import check_not_pointer

if TYPE_CHECKING:
    import torch

WINDOW_BYTES = 64 << 20
"""Bytes that are read through one mapping of a file: the pages of a mapping count as this process's memory."""

_BASES = ("diffusion_pytorch_model", "model", "pytorch_model")


class Checkpoint(Mapping[str, "torch.Tensor"]):
    """The tensors of weight files on the CPU, in their own dtypes, by name.

    Files are mapped into memory and read on access. A tensor keeps its mapping alive: whoever drops each tensor before
    the next is read holds no more than `WINDOW_BYTES` or one tensor.

    Args:
        files: safetensors files, or files of `torch.save`; of two tensors with one name the later counts.
        rename: returns the name by which a tensor is known here, given its name in the file.

    Raises:
        CaptureError: a file cannot be read; a file of `torch.save` holds more than tensors.
    """

    def __init__(self, files: Sequence[Path], rename: Callable[[str], str] = str) -> None:
        self._places: dict[str, tuple[Path, str]] = {}
        self._mapped: Path | None = None
        self._read: Callable[[str], torch.Tensor] | None = None
        self._read_bytes = 0
        for path in files:
            names, _ = _open(path)
            self._places.update({rename(name): (path, name) for name in names})

    def __getitem__(self, name: str) -> torch.Tensor:
        path, name_there = self._places[name]
        if self._read is None or path != self._mapped or self._read_bytes > WINDOW_BYTES:
            self._read = None  # ends the old mapping before the new one is made
            self._read, self._mapped, self._read_bytes = _open(path)[1], path, 0
        tensor = self._read(name_there)
        self._read_bytes += tensor.nbytes
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def choose_files(present: set[str], read_index: Callable[[str], dict[str, Any]]) -> list[str]:
    """Return the names of a component's weight files; empty where there are none, or a part of them is missing.

    Safetensors come before torch's format, and full precision before half (diffusers' and transformers' variant
    ``fp16``): the first that is complete is taken.

    Args:
        present: names of the files in the component's folder.
        read_index: returns the JSON of a sharded checkpoint's index, which names the shards.
    """
    for extension in ("safetensors", "bin"):
        for variant in ("", "fp16"):
            for base in _BASES:
                single = _joined(base, variant, extension)
                if single in present:
                    return [single]
                # Libraries write the variant last; people who rename by hand write it first.
                for index in {
                    _joined(base, extension, "index", variant, "json"): None,
                    _joined(base, variant, extension, "index", "json"): None,
                }:
                    shards = _shards(index, read_index) if index in present else []
                    if shards and set(shards) <= present:
                        return shards
    return []


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _shards(index: str, read_index: Callable[[str], dict[str, Any]]) -> list[str]:
    names = read_index(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CaptureError(f"{index} has no weight_map that names files", "download the file again")
    return sorted(set(names.values()))


def _open(path: Path) -> tuple[Iterable[str], Callable[[str], torch.Tensor]]:
    """Map a file; return the names of its tensors, and what reads one."""
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError, safe_open

    check_not_pointer(path)
    try:
        if path.suffix == ".safetensors":
            file = safe_open(path, framework="pt")
            return file.keys(), file.get_tensor
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return tensors.keys(), tensors.__getitem__
    except UnpicklingError as error:
        raise CaptureError(
            f"{path} holds more than tensors, and is not read: it could run code", "use safetensors"
        ) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CaptureError(f"cannot read the weights in {path}: {error}", "download the file again") from error
