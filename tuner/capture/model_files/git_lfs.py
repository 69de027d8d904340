"""Files that Git LFS left as pointers, as in a folder cloned without it."""

from __future__ import annotations

from pathlib import Path

from ....support.errors import CaptureError

_FIRST_LINE = b"version https://git-lfs.github.com/spec/"
_MOST_BYTES = 1024
"""A pointer is smaller (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""


def check_not_pointer(path: Path) -> None:
    """Raise CaptureError where ``path`` is a Git LFS pointer. A file that cannot be read is none."""
    try:
        if path.stat().st_size >= _MOST_BYTES:
            return
        with path.open("rb") as file:
            pointer = file.read(len(_FIRST_LINE)) == _FIRST_LINE
    except OSError:
        return
    if pointer:
        raise CaptureError(
            f"{path} is a Git LFS pointer, not the file itself",
            f"run `git lfs install` and `git lfs pull` in {path.parent}, or download the file",
        )
