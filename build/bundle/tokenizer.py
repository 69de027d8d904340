"""The tokenizer's files of a bundle, made from a model's ``tokenizer`` folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ...support.errors import BundleError, first_line
from ...tuner.capture.model_files.git_lfs import check_not_pointer
from ..format.manifest import PromptInfo


def tokenizer_files(folder: Path, length: int) -> tuple[dict[str, bytes], PromptInfo]:
    """Return the tokenizer's files by their path in the bundle, and how a prompt is framed.

    Args:
        folder: the model's ``tokenizer`` folder, in any form that transformers reads.
        length: token ids per prompt.

    Raises:
        BundleError: transformers cannot read the folder, or the tokenizer has no begin, end or padding token.
        CaptureError: a file of it is a Git LFS pointer.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise BundleError(f"the model has no folder {folder}", "give a diffusers folder with its tokenizer")
    for path in sorted(folder.iterdir()):
        check_not_pointer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        with tempfile.TemporaryDirectory() as temporary:
            tokenizer.save_pretrained(temporary)
            saved = Path(temporary)
            files = {f"tokenizer/{n}": (saved / n).read_bytes() for n in ("tokenizer.json", "tokenizer_config.json")}
    except (OSError, ValueError, ImportError) as error:
        line = first_line(error)
        raise BundleError(f"cannot read the tokenizer in {folder}: {line}") from error
    return files, PromptInfo(
        length=length,
        bos=_first_id(folder, "begin", tokenizer.bos_token_id, tokenizer.cls_token_id),
        eos=_first_id(folder, "end", tokenizer.eos_token_id, tokenizer.sep_token_id),
        pad=_first_id(folder, "padding", tokenizer.pad_token_id),
    )


def _first_id(folder: Path, what: str, *ids: Any) -> int:
    for value in ids:
        if value is not None:
            return int(value)
    raise BundleError(f"the tokenizer in {folder} names no {what} token")
