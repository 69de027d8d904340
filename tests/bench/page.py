"""Memory of the page while it loads a bundle of many shards, seen from outside, and JavaScript's time of a UNet step.

The bundle is synthetic: its shards hold noise that no kernel reads, its UNet has as many dispatches as that of SD 1.5.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Page
from rich.console import Console

from wgtune.build.format.file_digest import file_info
from wgtune.reports.tables import Column, print_rows
from wgtune.support.formatting import duration
from wgtune.web.server import BundleServer

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

SHARDS = 60
SHARD_BYTES = 64 << 20
UNET_DISPATCHES = 745
GPU_FLAGS = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]


@dataclass
class Visit:
    """Largest memory of the page's process in bytes, largest JavaScript heap, and duration of one visit."""

    visit: str
    resident: int
    proportional: int
    heap: int
    seconds: float
    longest_task_ms: float


def run(console: Console, shards: int = SHARDS) -> None:
    """Print the memory of a first and a second visit, and the JavaScript time of one UNet step."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        make_bundle_of_shards(folder / "bundle", shards)
        visits, encode = measure(folder)
    columns = [
        Column("visit", "visit"),
        Column("resident", "process, MiB", "right", mebibytes),
        Column("proportional", "its share, MiB", "right", mebibytes),
        Column("heap", "JS heap, MiB", "right", mebibytes),
        Column("longest_task_ms", "longest task, ms", "right", lambda value: f"{value:.0f}"),
        Column("seconds", "time", "right", duration),
    ]
    title = f"The page's process while it loads {shards} shards of {SHARD_BYTES >> 20} MiB"
    print_rows([asdict(visit) for visit in visits], columns, json=False, console=console, title=title)
    console.print(f"JavaScript of a UNet step of {UNET_DISPATCHES} dispatches: {duration(encode)}")


def mebibytes(value: int) -> str:
    """Return bytes as whole MiB."""
    return f"{value / (1 << 20):.0f}"


def make_bundle_of_shards(folder: Path, shards: int, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a synthetic bundle with ``shards`` more shards, each of other bytes."""
    from synthetic_bundle import make_bundle

    make_bundle(folder, unet_repeats=-(-UNET_DISPATCHES // 2), limits={"maxBufferSize": shard_bytes})
    plan = json.loads((folder / "plan.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    noise = bytearray(os.urandom(shard_bytes))
    for i in range(shards):
        noise[:8] = i.to_bytes(8, "little")
        path = f"weights/more-{i:03d}.bin"
        (folder / path).write_bytes(noise)
        plan["buffers"].append({"bytes": shard_bytes, "usage": "storage", "shard": path})
        info = file_info(bytes(noise))
        manifest["files"][path] = {"bytes": info.nbytes, "sha256": info.sha256, "pieces": info.pieces}
    text = json.dumps(plan).encode()
    (folder / "plan.json").write_bytes(text)
    manifest["files"]["plan.json"] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def measure(folder: Path) -> tuple[list[Visit], float]:
    """Load ``folder / "bundle"`` twice and draw; return both visits and the median encoding seconds of a UNet step."""
    from chromium import find_chromium
    from playwright.sync_api import sync_playwright

    visits = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(BundleServer(folder / "bundle"))
        playwright = stack.enter_context(sync_playwright())
        context = playwright.chromium.launch_persistent_context(
            str(folder / "profile"), executable_path=find_chromium(), headless=True, args=GPU_FLAGS
        )
        stack.callback(context.close)
        context.set_default_timeout(3600_000)
        for name in ("first", "second"):
            page = context.new_page()
            page.add_init_script(_LONG_TASKS)
            page.goto("about:blank")
            page.goto(f"{server.url}manifest.json")  # a process of its own, before anything is loaded
            started = time.perf_counter()
            with _watch() as peak:
                page.goto(server.url)
                for _ in while_loading(page):
                    heaps = [one.evaluate(_HEAP) for one in [page, *page.workers]]
                    peak["heap"] = max(peak["heap"], sum(heaps))
            seconds = time.perf_counter() - started
            longest = page.evaluate("() => Math.max(0, ...globalThis.longTasks)")
            visits.append(Visit(name, peak["resident"], peak["proportional"], peak["heap"], seconds, longest))
            page.evaluate("() => window.wgtune.generate({ prompt: 'warm', steps: 2 })")
            drawn = page.evaluate(
                "async () => (await window.wgtune.generate({ prompt: 'x', steps: 20 })).seconds.encode"
            )
            page.close()
    return visits, median(drawn)


def while_loading(page: Page) -> Iterator[None]:
    """Yield ten times a second until the page has loaded its whole bundle, to which consent is given where asked."""
    page.evaluate(_LOADED)
    while not page.evaluate("() => globalThis.isLoaded"):
        consent = page.locator("#download")
        if consent.is_visible():
            consent.click()
        yield
        page.wait_for_timeout(100)


_LOADED = """
() => { globalThis.isLoaded = false; wgtune.ready.then((p) => p.complete).then(() => (globalThis.isLoaded = true)); }
"""
_HEAP = "() => performance.memory?.usedJSHeapSize ?? 0"
_LONG_TASKS = """
globalThis.longTasks = [];
new PerformanceObserver((list) => {
  const painted = performance.getEntriesByName("first-paint")[0]?.startTime ?? Infinity;
  for (const { startTime, duration } of list.getEntries()) if (startTime >= painted) longTasks.push(duration);
}).observe({ type: "longtask" });
"""


@contextlib.contextmanager
def _watch() -> Iterator[dict[str, int]]:
    """Note the largest memory of the processes that render pages, ten times a second, until the context ends."""
    peak = {"resident": 0, "proportional": 0, "heap": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for pid in _renderers():
                with contextlib.suppress(OSError, ValueError):
                    memory = _memory(pid)
                    peak["resident"] = max(peak["resident"], memory["Rss"])
                    peak["proportional"] = max(peak["proportional"], memory["Pss"])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _renderers() -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if b"--type=renderer" in command and b"bench-" in _parents(int(process.name)):
                    found.append(int(process.name))
    return found


def _parents(pid: int) -> bytes:
    """Command lines of a process's parents: the browser's names its profile."""
    text = b""
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        text += Path(f"/proc/{pid}/cmdline").read_bytes()
    return text


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
