"""A bundle with two programs: the page runs the one that the GPU can run, and fetches nothing of the other."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import pytest
from chromium import Serve
from drawing import add_script, difference, generate, wait_until_ready
from playwright.sync_api import Page, expect
from synthetic_bundle import SyntheticBundle, make_bundle


@pytest.fixture(scope="module")
def two_programs(tmp_path_factory: pytest.TempPathFactory) -> SyntheticBundle:
    return make_bundle(tmp_path_factory.mktemp("programs"), half=True)


def test_without_shader_f16_no_file_of_half_floats_is_fetched(
    page: Page, two_programs: SyntheticBundle, serve: Serve
) -> None:
    fetched: list[str] = []
    page.context.on("request", lambda request: fetched.append(Path(urlparse(request.url).path).name))
    page.goto(serve(two_programs.folder))
    wait_until_ready(page)
    assert not page.evaluate("async () => (await navigator.gpu.requestAdapter()).features.has('shader-f16')")
    assert "plan.json" in fetched and "unet.wgsl" in fetched and not [name for name in fetched if "f16" in name]
    expect(page.locator("#bundle-line")).to_contain_text("2 never measured; f32 between them.")
    assert page.evaluate("async () => (await window.wgtune.ready).program.plan") == "plan.json"
    assert difference(generate(page, "boats", steps=2), two_programs.expected("boats")) <= 1


def test_a_program_that_the_gpu_cannot_run_is_told_before_any_download(
    page: Page, two_programs: SyntheticBundle, serve: Serve
) -> None:
    fetched: list[str] = []
    page.context.on("request", lambda request: fetched.append(urlparse(request.url).path))
    page.goto(serve(two_programs.folder) + "?compute=f16")
    expect(page.locator("#fault-title")).to_have_text("The GPU lacks a feature")
    expect(page.locator("#fault-hint")).to_have_text("Leave the choice of the program to the page.")
    assert not [path for path in fetched if path.startswith(("/plan", "/kernels", "/weights"))]


def test_with_shader_f16_the_program_of_half_floats_is_loaded(
    page: Page, two_programs: SyntheticBundle, serve: Serve
) -> None:
    """Chromium's software adapter has no such feature: one that only says so refuses the first shader."""
    add_script(
        page,
        """const has = GPUSupportedFeatures.prototype.has;
        GPUSupportedFeatures.prototype.has = function (name) { return name === "shader-f16" || has.call(this, name); };
        const open = GPUAdapter.prototype.requestDevice;
        GPUAdapter.prototype.requestDevice = function (wanted) {
          return open.call(this, { ...wanted, requiredFeatures: [] });
        };""",
    )
    fetched: list[str] = []
    page.context.on("request", lambda request: fetched.append(urlparse(request.url).path))
    page.goto(serve(two_programs.folder))
    expect(page.locator("#fault-title")).to_have_text("A shader does not compile")
    expect(page.locator("#fault-message")).to_contain_text("-f16.wgsl")
    assert "/plan-f16.json" in fetched and "/plan.json" not in fetched and "/kernels/unet.wgsl" not in fetched
