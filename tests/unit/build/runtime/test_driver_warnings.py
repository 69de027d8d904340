"""A bundle whose shaders loop for longer than a driver lets them: told for that driver, and for no other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from handmade_bundle import write_bundle

from wgtune.build.format.manifest import FileInfo
from wgtune.build.format.plan import BufferRange, PlanBuffer
from wgtune.build.format.reader import Bundle
from wgtune.build.format.shader_constants import declaration, member
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
    warnings = driver_warnings(bundle, bundle.programs[0], DEVICE)
    assert len(warnings) == told
    assert all("99 iterations, and 1 shader of this bundle" in one and DEVICE.key in one for one in warnings)


def test_a_shared_shader_loops_as_long_as_its_constants_say(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    effect = Quirks(max_thread_iterations=100)
    monkeypatch.setattr(quirks, "QUIRKS", (Quirk(DriverMatch("^gpu$"), "what", "reason", "seen", "remedy", effect),))
    source = bundle.read("kernels/vae.wgsl").decode().replace("100i", member(1, 3)).replace("i32 = 0i", "u32 = 0u")
    path = bundle.folder / "kernels" / "vae.wgsl"
    path.write_text(declaration(2, 2) + source)
    data = path.read_bytes()
    info = FileInfo(len(data), hashlib.sha256(data).hexdigest())
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, "kernels/vae.wgsl": info})
    (program,) = bundle.programs
    (decode,) = program.plan.stages["vae"]

    def warned(*loops: int) -> int:
        buffers = [*program.plan.buffers, *(PlanBuffer(16, "uniform", words=(1_000_000, count)) for count in loops)]
        first = len(program.plan.buffers)
        vae = [replace(decode, bindings=(*decode.bindings, BufferRange(first + at, 0, 16))) for at in range(len(loops))]
        plan = replace(program.plan, buffers=buffers, stages={**program.plan.stages, "vae": vae})
        return len(driver_warnings(replace(bundle, manifest=manifest), replace(program, plan=plan), DEVICE))

    assert warned(33) == 0 and warned(34) == 1 and warned(33, 34) == 1
