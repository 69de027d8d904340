"""Where wgtune keeps its files on this machine, following each system's conventions (platformdirs)."""

from __future__ import annotations

import math
import os
from pathlib import Path

import platformdirs

from .errors import UsageError


def data_dir() -> Path:
    """Return the folder of the user's database; ``WGTUNE_DATA`` overrides it."""
    return Path(os.environ.get("WGTUNE_DATA") or platformdirs.user_data_dir("wgtune", appauthor=False))


def cache_dir() -> Path:
    """Return the folder of captures and references, which can be made again; ``WGTUNE_CACHE`` overrides it."""
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
