"""A folder of files that can be made again, kept within a size."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

SPARED_S = 3600.0
"""Seconds since the last use in which a file may still be in use, perhaps by another process."""


def used(path: Path) -> None:
    """Mark a file as used now."""
    with contextlib.suppress(OSError):  # a read-only folder, whose files are not deleted either
        os.utime(path)


def evict(folder: Path, limit: int, spared_s: float = SPARED_S) -> int:
    """Delete files of ``folder``, the least recently `used` first, until the rest has at most ``limit`` bytes.

    Files used in the last ``spared_s`` seconds stay, even beyond the limit. Return the bytes that were freed.
    """
    found = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process may have deleted it
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
