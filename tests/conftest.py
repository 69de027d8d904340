"""What tests of several folders share: the demo pipeline, and a bundle built from it once per run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A job in a shell's background starts with Ctrl-C ignored, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo pipeline as diffusers saves it."""
    from wgtune.tuner.demo_model import make_demo_pipeline

    return make_demo_pipeline(tmp_path_factory.mktemp("demo") / "demo")


@pytest.fixture(scope="session")
def demo_bundle(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo pipeline as a bundle of untuned kernels without the page; tests must not change it."""
    from wgtune.build.builder import BuildRequest, build_bundle

    folder = tmp_path_factory.mktemp("bundle") / "dist"
    build_bundle(BuildRequest(model=str(demo_folder), output=folder, max_steps=20, page=False), None)
    return folder
