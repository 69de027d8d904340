"""Folders of the built web pages."""

from __future__ import annotations

from pathlib import Path

from ..support.errors import BundleError, WgtuneError


def app_dir() -> Path:
    """Return the folder with the built page (``index.html``, ``assets/``), ready to be copied into a bundle.

    Raises BundleError where the page has not been built.
    """
    folder = Path(__file__).parent / "app"
    if not (folder / "index.html").is_file():
        raise BundleError(f"the page has not been built: {folder / 'index.html'} is missing", "type: make web")
    return folder


def lender_dir() -> Path:
    """Return the folder with the built page (``index.html``, ``assets/``) through which browsers' GPUs are measured.

    Raises WgtuneError where the page has not been built.
    """
    folder = Path(__file__).parent / "lender-app"
    if not (folder / "index.html").is_file():
        raise WgtuneError(f"the page has not been built: {folder / 'index.html'} is missing", "type: make web")
    return folder
