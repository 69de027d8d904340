"""SD 1.5 with random weights in Chromium, on SwiftShader, against diffusers on PyTorch in float32.

Two steps and the decoder. Takes a quarter of an hour at 256 × 256, 16 GiB of memory and 10 GiB of disk.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from wgtune.build.bundle.builder import BuildRequest, build_bundle
from wgtune.build.format.sampler_tables import Sampler
from wgtune.database.schema.records import DeviceInfo
from wgtune.reports.tables import Column, print_rows
from wgtune.support.console import progress
from wgtune.support.formatting import duration
from wgtune.tuner.ir import CaptureOptions
from wgtune.web.server import BundleServer

from .page import GPU_FLAGS, while_loading

SIZE = 256
STEPS = 2
"""A picture of one step is nearly the noise alone: the UNet's output counts little in it."""

_ADAPTER = DeviceInfo("browser:chrome-google-swiftshader", "browser", "google", "swiftshader", "swiftshader", True)
_PROMPT, _SEED = "a lighthouse at dusk", 7


def run(console: Console, size: int = SIZE) -> None:
    """Print the largest difference of any colour of any pixel, and the times."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, progress("SD 1.5") as report:
        folder = Path(name)
        report("write a model", 0.0)
        subprocess.run([sys.executable, "-m", "tests.bench.model", str(folder / "model")], check=True)
        options = CaptureOptions(width=size, height=size)
        request = BuildRequest(
            str(folder / "model"), folder / "bundle", _ADAPTER, options, samplers=(Sampler.DDIM,), max_steps=STEPS
        )
        build_bundle(request, None, lambda what, done: report(what, 0.3 * done))
        report("draw in Chromium", 0.3)
        drawn, loading_s, drawing_s = _draw_in_chromium(folder / "bundle")
        report("draw in PyTorch", 0.9)
        expected = _draw_in_pytorch(folder / "model", size)
    difference = int(np.abs(drawn.astype(int) - expected.astype(int)).max())
    row = {
        "size": size,
        "difference": difference,
        "deviation": float(expected.std()),
        "loading_s": loading_s,
        "drawing_s": drawing_s,
    }
    columns = [
        Column("size", "size", "right", str),
        Column("difference", "largest difference, of 255", "right", str),
        Column("deviation", "deviation of colours", "right", lambda value: f"{value:.0f}"),
        Column("loading_s", "loading", "right", duration),
        Column("drawing_s", f"{STEPS} steps and the decoder", "right", duration),
    ]
    print_rows([row], columns, json=False, console=console, title="SD 1.5 in Chromium against PyTorch, untuned")


def _draw_in_chromium(bundle: Path) -> tuple[np.ndarray, float, float]:
    """Return the picture, RGB [height, width, 3], and the seconds of loading and of drawing."""
    from chromium import find_chromium
    from drawing import generate
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(BundleServer(bundle))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=GPU_FLAGS)
        stack.callback(browser.close)
        page = browser.new_page()
        page.set_default_timeout(3600_000)
        began = time.perf_counter()
        page.goto(server.url)
        for _ in while_loading(page):
            pass
        loading_s = time.perf_counter() - began
        began = time.perf_counter()
        picture = generate(page, _PROMPT, scheduler="ddim", steps=STEPS, seed=_SEED)[0, ..., :3]
        return picture, loading_s, time.perf_counter() - began


def _draw_in_pytorch(model: Path, size: int) -> np.ndarray:
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    loaded: dict[str, Any] = {"variant": "fp16", "torch_dtype": torch.float32, "local_files_only": True}
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, feature_extractor=None, **loaded)
    # A bundle's DDIM does not clip, as that of Stable Diffusion's own pipelines.
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(_SEED)
    picture = pipeline(_PROMPT, width=size, height=size, num_inference_steps=STEPS, generator=generator).images[0]
    return np.asarray(picture.convert("RGB"))
