"""All steps of `wgtune demo`: make a small model, tune it, report, build the bundle, draw an image."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from ...devices.device import Device
from ...devices.limits import find_tier
from ...support.console import progress, stderr, stdout
from ...tuner.ir import CaptureOptions

STEPS = 20
"""Inference steps of the image, and of the launch counts by which tuning distributes trials."""

ROWS = 12
"""Kernels in the printed report; the HTML page lists all."""


@dataclass(frozen=True)
class _Paths:
    model: Path
    database: Path
    report: Path
    bundle: Path
    picture: Path


def run_demo(folder: Path, minutes: float, device: Device, prompt: str, options: CaptureOptions) -> bool:
    """Run all steps and write their results to ``folder``; the model and trials of an earlier run are used again.

    Returns:
        False where the user interrupted the tuning, True otherwise.

    Raises:
        WgtuneError: a step failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = _Paths(
        folder / "tiny-sd", folder / "wgtune.db", folder / "latency.html", folder / "dist", folder / "picture.png"
    )
    started = time.monotonic()
    out = stdout()
    kind = "a software adapter: times here say nothing about a GPU" if device.software else device.driver
    out.print(f"[bold]wgtune demo[/] on {escape(device.key)} ({escape(kind)})", soft_wrap=True)
    _make_model(paths)
    if not _tune(paths, minutes, device, options):
        return False
    _report(paths, device)
    _build(paths, device, options)
    _draw(paths, device, prompt)
    out.print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. To draw in your browser, type:\n")
    out.print(f"  [bold]{_program()} web {shlex.quote(str(paths.bundle))}[/]", soft_wrap=True)
    return True


def _make_model(paths: _Paths) -> None:
    _heading(1, "A small Stable Diffusion pipeline with random weights")
    if not (paths.model / "model_index.json").is_file():
        from .model import make_demo_pipeline

        with progress("Making the model") as report:
            report("CLIP, UNet, VAE, scheduler and tokenizer", 0.0)
            make_demo_pipeline(paths.model)
    stdout().print(f"in {escape(str(paths.model))}", soft_wrap=True)


def _tune(paths: _Paths, minutes: float, device: Device, options: CaptureOptions) -> bool:
    from ...database.store import Store
    from ...reports.live.session import session_display
    from ...tuner.capture.model_capture import capture_model
    from ...tuner.capture.sources import resolve_model
    from ...tuner.session.request import TuneRequest
    from ...tuner.session.session import tune

    _heading(2, f"Tuning every kernel, {minutes:g} minutes")
    with progress("Capturing") as report:
        source = resolve_model(str(paths.model))
        capture = capture_model(source, options, progress=lambda what: report(what, 0.0))
    with Store.open(str(paths.database)) as store, session_display(stderr()) as listener:
        request = TuneRequest(
            capture=capture,
            device=device,
            tier=find_tier("default"),
            steps=STEPS,
            minutes=minutes,
            reason="demo",
        )
        return not tune(request, store, listener).interrupted


def _report(paths: _Paths, device: Device) -> None:
    from ...database.store import Store
    from ...reports.html.page import write_page
    from ...reports.latency import latency
    from ...reports.selection import select_model

    _heading(3, "Where an image's time goes")
    with Store.open(str(paths.database)) as store:
        model = select_model(store)
        latency(store, model.capture_key, device.key, STEPS).render(stdout(), limit=ROWS)
        write_page(paths.report, store, model.capture_key, device.key, STEPS)
    stdout().print(f"The same as a page: {escape(str(paths.report))}", soft_wrap=True)


def _build(paths: _Paths, device: Device, options: CaptureOptions) -> None:
    from ...build.bundle.builder import BuildRequest, build_bundle
    from ...database.store import Store
    from ...reports.listings.bundle import print_built
    from ...reports.selection import select_device

    _heading(4, "Building the bundle")
    with Store.open(str(paths.database)) as store, progress("Building") as report:
        tuned = select_device(store, device.key)
        request = BuildRequest(model=str(paths.model), output=paths.bundle, device=tuned, options=options, steps=STEPS)
        summary = build_bundle(request, store, report)
    print_built(summary, json=False, console=stdout())


def _draw(paths: _Paths, device: Device, prompt: str) -> None:
    from ...build.runtime.generate import generate
    from ...build.runtime.painter import GenerateOptions
    from ...reports.listings.bundle import print_generated

    _heading(5, f"Drawing “{prompt}” natively, with the shaders that the browser runs")
    with progress("Drawing") as report:
        options = GenerateOptions(steps=STEPS)
        made = generate(paths.bundle, prompt, paths.picture, options, seed=7, device=device.key, progress=report)
    print_generated(made, json=False, console=stdout())


def _heading(number: int, text: str) -> None:
    stdout().print(f"\n[bold cyan]{number}/5[/] [bold]{escape(text)}[/]", soft_wrap=True)


def _program() -> str:
    """Return the command that starts this program: ``wgtune`` only where the shell finds it under this name."""

    program = Path(sys.argv[0])
    found = shutil.which("wgtune")
    if found and Path(found).resolve() == program.resolve():
        return "wgtune"
    return shlex.quote(str(program)) if program.name == "wgtune" else f"{shlex.quote(sys.executable)} -m wgtune"
