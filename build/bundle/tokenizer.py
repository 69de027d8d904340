"""The tokenizer's files of a bundle, made from a model's ``tokenizer`` folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...support.errors import BundleError, first_line
from ...tuner.capture.model_files.git_lfs import check_not_pointer
from ..format.manifest import PromptInfo


def tokenizer_files(
    folder: Path, length: int, words: Mapping[str, int] = {}, rows: int | None = None
) -> tuple[dict[str, bytes], PromptInfo]:
    """Return the tokenizer's files by their path in the bundle, and how a prompt is framed.

    Args:
        folder: the model's ``tokenizer`` folder, in any form that transformers reads.
        length: token ids per prompt.
        words: textual inversions and how many tokens each is; these get the ids that follow the vocabulary's.
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


def _add_words(tokenizer: Any, folder: Path, words: Mapping[str, int], rows: int | None) -> None:
    if not words:
        return
    known = tokenizer.get_vocab()
    if taken := [word for word in words if word in known]:
        raise BundleError(f"the word {taken[0]} of a textual inversion is in the vocabulary already", "rename it")
    first, count = len(tokenizer), sum(words.values())
    if rows != first + count:
        raise BundleError(
            f"the tokenizer in {folder} has {first} tokens, and the text encoder's embedding {(rows or 0) - count} "
            "rows: a textual inversion has no place",
        )
    if count == len(words):
        tokenizer.add_tokens(list(words))
        return
    # No tokenizer gives several tokens for a word that is added to it. So the words become characters of Unicode's
    # private plane 15, and each of these a token: any reader of a tokenizer.json does both.
    from tokenizers import normalizers

    characters = [chr(0xF0000 + number) for number in range(count)]
    backend = tokenizer.backend_tokenizer
    own = backend.normalizer or normalizers.Sequence([])
    places: dict[str, str] = {}
    for word, tokens in words.items():
        done = sum(len(made) for made in places.values())
        places[own.normalize_str(word)] = "".join(characters[done : done + tokens])
    # The longest first, so that a word within another does not break it.
    replaced = [normalizers.Replace(word, places[word]) for word in sorted(places, key=len, reverse=True)]
    backend.normalizer = normalizers.Sequence([own, *replaced])
    tokenizer.add_tokens(characters)


def _first_id(folder: Path, what: str, *ids: Any) -> int:
    for value in ids:
        if value is not None:
            return int(value)
    raise BundleError(f"the tokenizer in {folder} names no {what} token")
