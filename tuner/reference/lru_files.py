"""Keeping a folder of files that can be made again within a size."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

SPARED_S = 3600.0
"""A file that was used within so many seconds may be in use, by another process too."""


def used(path: Path) -> None:
    """Marks a file as used now."""
    with contextlib.suppress(OSError):  # a folder that is only read: then it is not ours to clear, either
        os.utime(path)


def evict(folder: Path, limit: int, spared_s: float = SPARED_S) -> int:
    """Deletes the files of ``folder`` that were not `used` for longest until the rest has ``limit`` bytes at most.

    Those used in the last ``spared_s`` seconds stay, whatever they take. Returns the bytes that were freed.
    """
    found = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process may be clearing it just now
            if entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, status.st_size, entry.path))
    excess = sum(nbytes for _, nbytes, _ in found) - limit
    freed = 0
    for when, nbytes, path in sorted(found):
        if freed >= excess or time.time() - when < spared_s:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            freed += nbytes
    return freed
