"""Reads a file of prompts, one per line, and plans an image for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...support.errors import UsageError
from .torch_noise import check_seed

_MAX_BYTES = 64 << 20
"""Largest file that is read; a larger one is not a list of prompts."""

_MAX_PROMPT = 10_000
"""Most characters of a prompt. CLIP reads some 75 tokens, so a longer line is a mistake."""


@dataclass(frozen=True)
class Prompt:
    """The text of one ``line``, counted from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class BadLine:
    """A line that is not a prompt, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class ImageRequest:
    """One image to draw: its prompt's line and text, its seed, its file."""

    line: int
    prompt: str
    seed: int
    path: Path


def read_prompts(path: Path) -> tuple[list[Prompt], list[BadLine]]:
    """Return the prompts of a UTF-8 text file, and the lines that are not prompts.

    Empty lines and those that begin with ``#`` are skipped, but counted.

    Raises:
        UsageError: the file cannot be read, or has no prompts.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder", "give a text file with one prompt a line")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror or error}", "give a text file, one prompt a line"
        ) from None
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path} is larger than {_MAX_BYTES >> 20} MiB", "split it, or give a text file of prompts")
    prompts, bad = [], []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            text = raw.decode().strip()
        except UnicodeDecodeError as error:
            bad.append(BadLine(number, f"not UTF-8: {error.reason} at byte {error.start}"))
            continue
        if not text or text.startswith("#"):
            continue
        reason = _reason_against(text)
        if reason:
            bad.append(BadLine(number, reason))
        else:
            prompts.append(Prompt(number, text))
    if not prompts and not bad:
        raise UsageError(f"{path} holds no prompts", "write one prompt a line")
    return prompts, bad


def plan_images(prompts: Sequence[Prompt], seed: int, folder: Path) -> list[ImageRequest]:
    """Return a request for each prompt: seed is ``seed`` plus its line, file is ``<line>.png`` in ``folder``.

    So a line's image depends neither on the device that draws it nor on other lines. Raises UsageError for a seed that
    torch refuses.
    """
    digits = max(4, len(str(max((prompt.line for prompt in prompts), default=0))))
    for prompt in prompts:
        check_seed(seed + prompt.line)
    return [ImageRequest(p.line, p.text, seed + p.line, folder / f"{p.line:0{digits}}.png") for p in prompts]


def _reason_against(text: str) -> str:
    if len(text) > _MAX_PROMPT:
        return f"{len(text):,} characters are too long for a prompt"
    odd = next((character for character in text if not character.isprintable() and character != "\t"), None)
    return f"holds the control character U+{ord(odd):04X}" if odd is not None else ""
