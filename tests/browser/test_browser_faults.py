"""Where the page cannot draw it says which of the possible reasons it is, in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import Serve
from drawing import add_script, wait_until_ready
from playwright.sync_api import Page, Route, expect
from synthetic_bundle import UNET, SyntheticBundle, make_bundle


def fault(page: Page) -> tuple[str, str, str]:
    """Title, message and hint of the fault that the page shows."""
    alert = page.get_by_role("alert")
    expect(alert).to_be_visible(timeout=30_000)
    return tuple(page.locator(f"#fault-{part}").inner_text() for part in ("title", "message", "hint"))  # type: ignore[return-value]


def test_no_webgpu(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    page.add_init_script("delete Navigator.prototype.gpu")
    page.goto(serve(bundle.folder))
    title, message, hint = fault(page)
    assert (title, message) == ("No WebGPU", "This browser has no WebGPU.")
    assert "Chrome" in hint
    expect(page.get_by_role("button", name="Generate")).to_be_disabled()


def test_insecure_page(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    """A host name that is not this machine, over plain HTTP: browsers hide WebGPU there."""
    url = serve(bundle.folder)

    def answer(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("http://gpu.example/", url)))

    page.route("http://gpu.example/**", answer)
    page.goto("http://gpu.example/")
    assert page.evaluate("() => window.isSecureContext") is False
    title, message, hint = fault(page)
    assert title == "This page is not secure"
    assert "plain HTTP" in message
    assert "https://" in hint


def test_no_adapter(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    add_script(page, "GPU.prototype.requestAdapter = async () => null")
    page.goto(serve(bundle.folder))
    title, message, hint = fault(page)
    assert title == "No GPU"
    assert "found no GPU" in message
    assert "hardware acceleration" in hint


def test_limits(page: Page, serve: Serve, tmp_path: Path) -> None:
    make_bundle(tmp_path, limits={"maxStorageBufferBindingSize": 1 << 46, "maxComputeInvocationsPerWorkgroup": 1 << 20})
    page.goto(serve(tmp_path))
    title, message, _ = fault(page)
    assert title == "The GPU is too small"
    assert "maxStorageBufferBindingSize: 67108864 MiB needed, " in message
    assert "maxComputeInvocationsPerWorkgroup: 1048576 needed, " in message
    assert message.count(" there") == 2


def test_missing_feature(page: Page, serve: Serve, tmp_path: Path) -> None:
    """Chromium's software adapter has no half precision."""
    make_bundle(tmp_path, features=("shader-f16",))
    page.goto(serve(tmp_path))
    title, message, _ = fault(page)
    assert title == "The GPU lacks a feature"
    assert "“shader-f16”" in message


def _damage(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_damage, "has other bytes than the manifest says"),
        (lambda data: data[:-5], "of the 4384 bytes that the manifest says"),
        (lambda data: data + b"more", "is longer than the 4384 bytes"),
    ],
)
def test_damaged_file(page: Page, serve: Serve, tmp_path: Path, change: Callable[[bytes], bytes], words: str) -> None:
    make_bundle(tmp_path)
    shard = tmp_path / "weights/shard-000.bin"
    shard.write_bytes(change(shard.read_bytes()))
    page.goto(serve(tmp_path))
    title, message, _ = fault(page)
    assert title == "A file is damaged"
    assert message.startswith("weights/shard-000.bin is damaged: it ")
    assert words in message


@pytest.mark.parametrize("path", ["weights/shard-001.bin", "kernels/vae.wgsl", "plan.json", "manifest.json"])
def test_missing_file(page: Page, serve: Serve, tmp_path: Path, path: str) -> None:
    make_bundle(tmp_path)
    url = serve(tmp_path)
    (tmp_path / path).unlink()
    page.goto(url)
    title, message, _ = fault(page)
    assert title == "A file is missing"
    assert message == f"{path} is missing: {url}{path} answers 404 Not Found."


def test_manifest_that_is_a_web_page(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    """Some hosts answer every address with their start page."""
    page.route("**/manifest.json", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    page.goto(serve(bundle.folder))
    assert fault(page)[1].endswith("manifest.json is not a bundle's manifest.")


def test_other_format_version(page: Page, serve: Serve, tmp_path: Path) -> None:
    make_bundle(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 1}))
    page.goto(serve(tmp_path))
    title, message, _ = fault(page)
    assert title == "The bundle cannot be read"
    assert message == "The bundle has format 1; this page reads format 2."


def test_server_that_stops(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    page.route("**/weights/*", lambda route: route.abort("connectionrefused"))
    page.goto(serve(bundle.folder))
    title, message, hint = fault(page)
    assert title == "The network failed"
    assert "weights/shard-00" in message
    assert "Check that the server is running" in hint


def test_server_that_stumbles_once(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    """One refused connection, one busy server: the page tries again."""
    stumbles = iter([lambda route: route.abort("connectionreset"), lambda route: route.fulfill(status=503)])
    page.route("**/weights/*", lambda route: next(stumbles, lambda route: route.continue_())(route))
    page.goto(serve(bundle.folder))
    wait_until_ready(page)


def test_shader_that_the_browser_refuses(page: Page, serve: Serve, tmp_path: Path) -> None:
    make_bundle(tmp_path, shaders={"unet": UNET.replace("abs(value)", "abs(valve)")})
    page.goto(serve(tmp_path))
    title, message, _ = fault(page)
    assert title == "A shader does not compile"
    assert "kernels/unet.wgsl: line 13: " in message
    assert "valve" in message


def test_gpu_that_refuses_a_command(page: Page, serve: Serve, tmp_path: Path) -> None:
    """More workgroups than WebGPU allows: an error that only the GPU process finds."""
    make_bundle(tmp_path)
    _rewrite_plan(tmp_path, lambda plan: plan["stages"]["vae"][0].update(grid=[70000, 1, 1]))
    page.goto(serve(tmp_path))
    wait_until_ready(page)
    page.get_by_role("button", name="Generate").click()
    title, message, _ = fault(page)
    assert title == "The GPU refused"
    assert "70000" in message


def test_bindings_that_do_not_fit(page: Page, serve: Serve, tmp_path: Path) -> None:
    """A storage buffer where the shader has a uniform."""
    make_bundle(tmp_path)
    _rewrite_plan(tmp_path, lambda plan: plan["stages"]["vae"][0]["bindings"].reverse())
    page.goto(serve(tmp_path))
    title, message, _ = fault(page)
    assert title == "The GPU refused"
    assert "vae[0]" in message


def test_plan_outside_its_buffers(page: Page, serve: Serve, tmp_path: Path) -> None:
    make_bundle(tmp_path)
    _rewrite_plan(tmp_path, lambda plan: plan["stages"]["unet"][1]["bindings"].__setitem__(0, [0, 256, 1 << 20]))
    page.goto(serve(tmp_path))
    assert fault(page)[:2] == (
        "The bundle cannot be read",
        "stages.unet[1].bindings reaches outside buffer 0.",
    )


def test_too_little_memory(page: Page, serve: Serve, tmp_path: Path) -> None:
    make_bundle(tmp_path)
    add_script(
        page,
        """const popErrorScope = GPUDevice.prototype.popErrorScope;
        let first = true;
        GPUDevice.prototype.popErrorScope = async function () {
          const error = await popErrorScope.call(this);
          if (!first) return error;
          first = false;
          return new GPUOutOfMemoryError("no space left");
        };""",
    )
    page.goto(serve(tmp_path))
    title, message, hint = fault(page)
    assert title == "Not enough GPU memory"
    assert message.startswith("The GPU has no room for ")
    assert "Close other tabs" in hint


def _rewrite_plan(folder: Path, change: Callable[[dict], object]) -> None:
    """Change plan.json and make the manifest agree."""
    import hashlib

    plan = json.loads((folder / "plan.json").read_text())
    change(plan)
    data = json.dumps(plan).encode()
    (folder / "plan.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["plan.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
