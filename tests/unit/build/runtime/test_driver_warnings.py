"""A bundle whose shaders loop for longer than a driver lets them: told for that driver, and for no other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from handmade_bundle import write_bundle

from wgtune.build.format.reader import Bundle
from wgtune.build.runtime.driver_warnings import driver_warnings
from wgtune.devices import quirks
from wgtune.devices.device import Device
from wgtune.devices.quirks import DriverMatch, Quirk, Quirks
from wgtune.support.enums import Runtime

DEVICE = Device("vulkan:gpu", "vulkan", "v", "a", "gpu", "1", "discrete", False, {}, (), Runtime.WGPU, 0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with a loop of 100 iterations in its decoder."""
    folder = write_bundle(tmp_path / "bundle")
    shader = folder / "kernels" / "vae.wgsl"
    head, brace, body = shader.read_text().partition("vec3u) {")
    shader.write_text(f"{head}{brace} for (var i : i32 = 0i; i < 100i; i++) {{ continue; }} {body}")
    data, manifest = shader.read_bytes(), json.loads((folder / "manifest.json").read_text())
    manifest["files"]["kernels/vae.wgsl"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


@pytest.mark.parametrize(
    ("model", "limit", "told"), [("^gpu$", 99, True), ("^gpu$", 100, False), ("^another$", 1, False)]
)
def test_only_what_surely_loops_too_long_is_told(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, model: str, limit: int, told: bool
) -> None:
    effect = Quirks(max_thread_iterations=limit)
    monkeypatch.setattr(quirks, "QUIRKS", (Quirk(DriverMatch(model), "what", "reason", "seen", "remedy", effect),))
    warnings = driver_warnings(bundle, DEVICE)
    assert len(warnings) == told
    assert all("99 iterations, and 1 shader of this bundle" in one and DEVICE.key in one for one in warnings)
