"""Prompt to token ids: reads a bundle's tokenizer.json and frames the ids as docs/bundle.md says ("Token ids")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...support.errors import BundleError
from .manifest import PromptInfo

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(data: bytes) -> Tokenizer:
    """Return the tokenizer in the bytes of a tokenizer.json.

    Raises:
        BundleError: the bytes are not a tokenizer's.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the Rust library raises plain Exception
        raise BundleError(f"the bundle's tokenizer.json cannot be read: {error}", "build the bundle again") from error
    # The file may configure truncation and padding; `token_ids` does both, so that every runtime does the same.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_ids(tokenizer: Tokenizer, prompt: PromptInfo, text: str) -> list[int]:
    """Return exactly ``prompt.length`` ids: begin, the ids of ``text`` cut to fit, end, padding."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids[: prompt.length - 2]
    framed = [prompt.bos, *ids, prompt.eos]
    return framed + [prompt.pad] * (prompt.length - len(framed))
