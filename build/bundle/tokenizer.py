"""The tokenizer's files of a bundle, made from a model's ``tokenizer`` folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...support.errors import BundleError, first_line
from ...tuner.capture.model_files.git_lfs import check_not_pointer
from ..format.manifest import PromptInfo


def tokenizer_files(
    folder: Path, length: int, words: Sequence[str] = (), rows: int | None = None
) -> tuple[dict[str, bytes], PromptInfo]:
    """Return the tokenizer's files by their path in the bundle, and how a prompt is framed.

    Args:
        folder: the model's ``tokenizer`` folder, in any form that transformers reads.
        length: token ids per prompt.
        words: textual inversions, which get the ids that follow the vocabulary's.
        rows: rows of the text encoder's embedding, those of ``words`` included.

    Raises:
        BundleError: transformers cannot read the folder, or the tokenizer has no begin, end or padding token; a word
            is in the vocabulary already, or its id would not be its row.
        CaptureError: a file of it is a Git LFS pointer.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise BundleError(f"the model has no folder {folder}", "give a diffusers folder with its tokenizer")
    for path in sorted(folder.iterdir()):
        check_not_pointer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        _add_words(tokenizer, folder, words, rows)
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


def _add_words(tokenizer: Any, folder: Path, words: Sequence[str], rows: int | None) -> None:
    if not words:
        return
    known = tokenizer.get_vocab()
    if taken := [word for word in words if word in known] or [word for word in words if words.count(word) > 1]:
        raise BundleError(f"the word {taken[0]} of a textual inversion is in the vocabulary already", "rename it")
    first = len(tokenizer)
    if rows != first + len(words):
        raise BundleError(
            f"the tokenizer in {folder} has {first} tokens, and the text encoder's embedding "
            f"{(rows or 0) - len(words)} rows: a textual inversion has no place",
        )
    tokenizer.add_tokens(list(words))


def _first_id(folder: Path, what: str, *ids: Any) -> int:
    for value in ids:
        if value is not None:
            return int(value)
    raise BundleError(f"the tokenizer in {folder} names no {what} token")
