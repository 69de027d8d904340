"""Where wgtune keeps its files on this machine, following each system's conventions (platformdirs).

And how files of the cache, which can be made again, are written whole and deleted when there are too many.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from .errors import UsageError

SPARED_S = 3600.0
"""Seconds since the last use in which a file may still be in use, perhaps by another process."""


def data_dir() -> Path:
    """Return the folder of the user's database; ``WGTUNE_DATA`` overrides it."""
    return Path(os.environ.get("WGTUNE_DATA") or platformdirs.user_data_dir("wgtune", appauthor=False))


def cache_dir() -> Path:
    """Return the folder of captures, references and programs; ``WGTUNE_CACHE`` overrides it."""
    return Path(os.environ.get("WGTUNE_CACHE") or platformdirs.user_cache_dir("wgtune", appauthor=False))


def cache_limit() -> int:
    """Return the bytes that references may take in the cache: 20 GiB, or as many GiB as ``WGTUNE_CACHE_GIB`` says.

    Raises UsageError where that is no number, or a negative one.
    """
    text = os.environ.get("WGTUNE_CACHE_GIB") or "20"
    try:
        limit = float(text) * (1 << 30)
    except ValueError:
        limit = math.nan
    if not (math.isfinite(limit) and limit >= 0):
        raise UsageError(f"WGTUNE_CACHE_GIB is {text!r}, which is no size", "say so many GiB: WGTUNE_CACHE_GIB=50")
    return round(limit)


def default_database() -> str:
    """Return the user's own database: a SQLite file's path, or the path or SQLAlchemy URL in ``WGTUNE_DB``."""
    return os.environ.get("WGTUNE_DB") or str(data_dir() / "wgtune.db")


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside ``path``, which takes its place when the block ends without an error.

    Readers see the whole file or none, and a killed process leaves no part of one. The folder is made where missing.
    Raises OSError where that, or the renaming, fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
