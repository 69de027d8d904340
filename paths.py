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


def default_database_url() -> str:
    """SQLAlchemy URL of the user's own database; ``WGTUNE_DB`` overrides it."""
    return os.environ.get("WGTUNE_DB") or f"sqlite:///{data_dir() / 'wgtune.db'}"
