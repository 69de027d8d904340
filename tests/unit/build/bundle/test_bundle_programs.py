"""A bundle's shaders by kernel, and the work that they stand for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from synthetic_bundle import make_bundle

from wgtune.build.bundle.bundle_programs import KernelWork, bundle_programs
from wgtune.build.format.reader import Bundle
from wgtune.cli.report import compiled as command
from wgtune.database.store import Store
from wgtune.devices.offline.chips import select_chips
from wgtune.devices.offline.compiler import shader_digest
from wgtune.devices.program import Shader
from wgtune.support.enums import AttentionForm, ComputePrecision, WeightPrecision
from wgtune.support.errors import BundleError


def renamed(folder: Path, names: dict[str, str]) -> Bundle:
    """Give a bundle's shader files other names, by their stems."""
    manifest = json.loads((folder / "manifest.json").read_text())
    plan = json.loads((folder / "plan.json").read_text())
    for shader in plan["shaders"]:
        stem = Path(shader["file"]).stem
        if stem in names:
            new = f"kernels/{names[stem]}.wgsl"
            (folder / shader["file"]).rename(folder / new)
            manifest["files"][new] = manifest["files"].pop(shader["file"])
            shader["file"] = new
    text = json.dumps(plan).encode()
    (folder / "plan.json").write_bytes(text)
    manifest["files"]["plan.json"] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


def test_shaders_belong_to_the_kernel_that_they_are_named_after(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    bundle = renamed(
        tmp_path / "bundle",
        {"means": "matmul_add_0123abcd-0", "unet": "matmul_add_0123abcd-1", "vae": "conv2d_89abcdef-0"},
    )
    work = {"matmul_add_0123abcd": KernelWork("an id", 5e9, {"unet": 3})}
    found = {one.name: one for one in bundle_programs(bundle, bundle.programs[0], 20, work)}
    assert list(found) == ["matmul_add_0123abcd", "conv2d_89abcdef"], "glue is left out"
    matmul, conv = found.values()
    assert (matmul.workload_id, matmul.flops, matmul.launches) == ("an id", 5e9, {"unet": 60})
    assert (conv.workload_id, conv.flops, conv.launches) == ("", None, {"vae": 1})
    files = [shader for shader in bundle.programs[0].plan.shaders if "matmul" in shader.file]
    sources = [Shader(one.entry, bundle.read(one.file).decode(), (1, 1, 1)) for one in files]
    assert list(matmul.shaders) == [shader_digest(one) for one in sources] and matmul.before == ""


def test_what_runs_just_before_is_told(tmp_path: Path) -> None:
    """Where two kernels share a shader, it is named after the first of them."""
    make_bundle(tmp_path / "bundle")
    bundle = renamed(tmp_path / "bundle", {"means": "matmul_0123abcd-0", "unet": "matmul_add_89abcdef-0"})
    first, second = bundle_programs(bundle, bundle.programs[0], 20, {})
    assert second.before in first.shaders and first.before == ""


def test_a_bundle_tells_which_kernels_share_a_shader(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    files = {"means": "matmul_0123abcd-0", "unet": "matmul_0123abcd-1", "vae": "conv2d_89abcdef-0"}
    renamed(tmp_path / "bundle", files)
    names = {"matmul_0123abcd": ["means", "unet"], "matmul_ffffffff": ["unet"], "conv2d_89abcdef": ["vae"]}
    bundle = told(
        tmp_path / "bundle", {name: [f"kernels/{files[one]}.wgsl" for one in own] for name, own in names.items()}
    )
    found = {one.name: one for one in bundle_programs(bundle, bundle.programs[0], 20, {})}
    assert list(found) == list(names) and not any(one.before for one in found.values())
    first, second, _ = (list(one.shaders) for one in found.values())
    assert first[1:] == second and len(first) == 2
    damaged = told(tmp_path / "bundle", {"matmul_0123abcd": ["kernels/none.wgsl"]})
    with pytest.raises(BundleError, match="names shaders of matmul_0123abcd that the plan lacks"):
        bundle_programs(damaged, damaged.programs[0], 20, {})


def test_the_program_that_needs_the_least_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What translates WGSL has no half floats; who asks for them is told what it says."""
    make_bundle(tmp_path / "bundle", half=True)
    monkeypatch.setattr(command, "_work", lambda *_: {})

    def subject(compute: ComputePrecision | None) -> str:
        weights, attention = WeightPrecision.F32, AttentionForm.FUSED
        choice = command._Choice(
            tmp_path / "bundle", None, None, None, 20, "default", None, None, weights, attention, compute
        )
        with Store.memory() as store:
            return command._programs(store, choice, select_chips([]))[0]

    assert subject(None).endswith("(plan.json)") and subject(ComputePrecision.F16).endswith("(plan-f16.json)")


def told(folder: Path, kernels: dict[str, list[str]]) -> Bundle:
    """Give a bundle a provenance.json with these kernels and their shaders."""
    made = [
        {"name": name, "workload": "w", "program": "p", "shaders": shaders, "source": "baseline"}
        for name, shaders in kernels.items()
    ]
    data = json.dumps({"sessions": {}, "programs": {"plan.json": made}}).encode()
    (folder / "provenance.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["provenance.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["documents"] = ["provenance.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)
