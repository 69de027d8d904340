"""Where Chromium is, and how it is started so that its software GPU (SwiftShader) serves WebGPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Serve = Callable[[Path], str]
"""Starts a server for a folder and returns its URL."""

FLAGS = [
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str:
    """Path of Chromium; ``WGTUNE_CHROMIUM`` names another one."""
    given = os.environ.get("WGTUNE_CHROMIUM")
    for name in (given,) if given else NAMES:
        found = shutil.which(name)
        if found:
            return found
    wanted = given or ", ".join(NAMES)
    pytest.fail(f"no Chromium ({wanted}): apt-get install chromium, or set WGTUNE_CHROMIUM to its path", pytrace=False)
