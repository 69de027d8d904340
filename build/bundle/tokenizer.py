"""The prompt's way to token ids: the tokenizer's files in a bundle, and the framing that docs/bundle.md describes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...support.errors import BundleError
from ..format.manifest import PromptInfo

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tokenizer_files(folder: Path, length: int) -> tuple[dict[str, bytes], PromptInfo]:
    """The bundle's tokenizer files by path, and how a prompt of ``length`` ids is framed.

    ``folder`` is the model's ``tokenizer`` folder, in any form that transformers reads. Raises BundleError where it
    does not, or the tokenizer lacks one of the ids.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise BundleError(f"the model has no folder {folder}", "give a diffusers folder with its tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
        with tempfile.TemporaryDirectory() as temporary:
            tokenizer.save_pretrained(temporary)
            saved = Path(temporary)
            files = {f"tokenizer/{n}": (saved / n).read_bytes() for n in ("tokenizer.json", "tokenizer_config.json")}
    except (OSError, ValueError, ImportError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BundleError(f"cannot read the tokenizer in {folder}: {line}") from error
    return files, PromptInfo(
        length=length,
        bos=_first(folder, "begin", tokenizer.bos_token_id, tokenizer.cls_token_id),
        eos=_first(folder, "end", tokenizer.eos_token_id, tokenizer.sep_token_id),
        pad=_first(folder, "padding", tokenizer.pad_token_id),
    )


def _first(folder: Path, what: str, *ids: Any) -> int:
    for value in ids:
        if value is not None:
            return int(value)
    raise BundleError(f"the tokenizer in {folder} names no {what} token")


def token_ids(tokenizer: Tokenizer, prompt: PromptInfo, text: str) -> list[int]:
    """``prompt.length`` ids of ``text``: begin, the text's ids cut to fit, end, padding."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids[: prompt.length - 2]
    framed = [prompt.bos, *ids, prompt.eos]
    return framed + [prompt.pad] * (prompt.length - len(framed))


def load_tokenizer(data: bytes) -> Tokenizer:
    """The tokenizer in the bytes of a tokenizer.json; raises BundleError where they are none."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the Rust library raises plain Exception
        raise BundleError(f"the bundle's tokenizer.json cannot be read: {error}", "build the bundle again") from error
    # A file may ask for cutting and padding of its own; here both are the caller's.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
