"""Where wgtune keeps its files on this machine, following each system's conventions (platformdirs)."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_dir() -> Path:
    """The folder of the user's database; ``WGTUNE_DATA`` overrides it."""
    return Path(os.environ.get("WGTUNE_DATA") or platformdirs.user_data_dir("wgtune", appauthor=False))


def cache_dir() -> Path:
    """The folder of what can be made again: captures and references; ``WGTUNE_CACHE`` overrides it."""
    return Path(os.environ.get("WGTUNE_CACHE") or platformdirs.user_cache_dir("wgtune", appauthor=False))


def default_database() -> str:
    """The user's own database: the path of a SQLite file, or what ``WGTUNE_DB`` says, a path or a SQLAlchemy URL."""
    return os.environ.get("WGTUNE_DB") or str(data_dir() / "wgtune.db")
