"""Where the repository, its tests and their data lie."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
REPOSITORY = TESTS.parent
DATABASES = TESTS / "data" / "databases"
"""SQL dumps of databases of every schema revision."""
