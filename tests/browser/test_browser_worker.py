"""Loading and drawing run in a worker, so the page stays responsive; a lost GPU comes back without a reload."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from chromium import Serve
from drawing import add_script, difference, generate, shown, slow_down, wait_until_ready, worker
from playwright.sync_api import Browser, Page, expect
from synthetic_bundle import SyntheticBundle, make_bundle

_LOSE = "() => globalThis.device.destroy()"


def keep_device(page: Page) -> None:
    """Keep the worker's GPU device as its global ``device``."""
    add_script(
        page,
        """const requestDevice = GPUAdapter.prototype.requestDevice;
        GPUAdapter.prototype.requestDevice = async function (...args) {
          return (globalThis.device = await requestDevice.apply(this, args));
        };""",
    )


def draw(page: Page, bundle: SyntheticBundle, prompt: str) -> None:
    """Draw by the form, and check the picture."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Seed", exact=True).fill("3")
    page.get_by_label("Steps").select_option("2")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("img", name=prompt)).to_be_visible()
    assert difference(shown(page), bundle.expected(prompt, steps=2, seed=3)) <= 1


def test_device_that_is_lost_comes_back(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    fetched: list[str] = []
    keep_device(page)
    page.goto(serve(bundle.folder))
    wait_until_ready(page)
    page.get_by_label("Prompt", exact=True).fill("typed before")
    page.on("request", lambda request: fetched.append(request.url))
    worker(page).evaluate(_LOSE)
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()
    wait_until_ready(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    assert page.get_by_label("Prompt", exact=True).input_value() == "typed before"
    draw(page, bundle, "after the loss")
    assert fetched == []
    # Lost again at once: this time the visitor is asked.
    worker(page).evaluate(_LOSE)
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator("#fault-title").inner_text() == "The GPU stopped"
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()
    page.get_by_role("button", name="Open the GPU again").click()
    wait_until_ready(page)
    expect(page.get_by_role("alert")).to_be_hidden()
    draw(page, bundle, "after both losses")


def test_device_that_is_lost_while_drawing(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    slow_down(page)
    keep_device(page)
    page.goto(serve(bundle.folder))
    wait_until_ready(page)
    page.get_by_label("Steps").select_option("20")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text(re.compile(r"Step \d+ of 20"))).to_be_visible()
    worker(page).evaluate(_LOSE)
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator("#fault-message").inner_text().startswith("The GPU stopped working for this page")
    assert page.locator("#fault-hint").inner_text() == (
        "It is ready again, and the picture was not finished: press Generate."
    )
    expect(page.get_by_role("button", name="Reload")).to_be_hidden()
    draw(page, bundle, "drawn again")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_shaders_are_compiled_in_the_order_of_their_use(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    add_script(
        page,
        """globalThis.compiled = [];
        const create = GPUDevice.prototype.createComputePipelineAsync;
        GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
          compiled.push(descriptor.label);
          return create.call(this, descriptor);
        };""",
    )
    page.goto(serve(bundle.folder))
    wait_until_ready(page)
    names = [Path(label).stem for label in worker(page).evaluate("() => globalThis.compiled")]
    assert names == ["clip", "schedule", "means", "unet", "guide", "vae", "image"]


def test_workers_without_webgpu(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    """Then the page's own thread draws, and says so."""
    add_script(page, "if (!globalThis.document) delete WorkerNavigator.prototype.gpu")
    page.goto(serve(bundle.folder))
    assert difference(generate(page, "alone", steps=2), bundle.expected("alone")) <= 1
    expect(page.locator("#device-line")).to_contain_text("This browser offers WebGPU to pages only, not to workers.")
    assert page.workers == []
    draw(page, bundle, "by the form")


def test_page_without_workers(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    page.add_init_script(
        "globalThis.Worker = class { constructor() { throw new DOMException('no', 'SecurityError'); } }"
    )
    page.goto(serve(bundle.folder))
    assert difference(generate(page, "alone", steps=2), bundle.expected("alone")) <= 1
    expect(page.locator("#device-line")).to_contain_text("This page may start no worker.")


def main_thread_tasks(trace: bytes) -> list[float]:
    """CPU milliseconds of each task on the main threads of pages, longest first."""
    events = json.loads(trace)["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    # CPU time, not duration: other programs on this machine are not the page's fault.
    return sorted(
        (
            event["tdur"] / 1000
            for event in events
            if (event["pid"], event["tid"]) in mains and event["name"].endswith("RunTask") and "tdur" in event
        ),
        reverse=True,
    )


@pytest.mark.parametrize("thread", ["worker", "page"])
def test_no_long_task(browser: Browser, page: Page, serve: Serve, tmp_path: Path, thread: str) -> None:
    """Loading 20 MB with checks and drawing leave the page's main thread free; in the page's own thread they do not."""
    bundle = make_bundle(tmp_path, passenger_bytes=20_000_000, limits={"maxBufferSize": 32 << 20}, unet_repeats=300)
    url = serve(tmp_path)
    if thread == "page":
        page.add_init_script("globalThis.Worker = class { constructor() { throw new Error('no worker'); } }")
    page.goto(url + "assets/wgtune.js")  # the renderer is started, and no page is there yet
    browser.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    page.goto(url)
    page.evaluate("async () => { await (await window.wgtune.ready).complete; }")
    draw(page, bundle, "a quiet page")
    tasks = main_thread_tasks(browser.stop_tracing())
    assert len(tasks) > 100
    if thread == "worker":
        assert tasks[0] < 50
    else:
        assert sum(tasks[:20]) > 100
