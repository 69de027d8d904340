"""The browser's side: the built page, and a server for a bundle on this machine (the TypeScript lies in ``src``)."""

from __future__ import annotations

from pathlib import Path

from ..support.errors import BundleError, WgtuneError


def app_dir() -> Path:
    """The folder with the built page: ``index.html`` and ``assets/``, ready to be copied into a bundle.

    Raises BundleError where the page has not been built.
    """
    folder = Path(__file__).parent / "app"
    if not (folder / "index.html").is_file():
        raise BundleError(f"the page has not been built: {folder / 'index.html'} is missing", "type: make web")
    return folder


def lender_dir() -> Path:
    """The folder with the built page that lends a browser's GPU to the tuner: ``index.html`` and ``assets/``.

    Raises WgtuneError where the page has not been built.
    """
    folder = Path(__file__).parent / "lender-app"
    if not (folder / "index.html").is_file():
        raise WgtuneError(f"the page has not been built: {folder / 'index.html'} is missing", "type: make web")
    return folder
