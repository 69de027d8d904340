"""provenance.json and measured.json: strict like the others, and listed as what no runtime reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from handmade_bundle import write_bundle

from wgtune.build.bundle.documents import store_measured
from wgtune.build.format.documents import MEASURED, PROVENANCE, ProgramTimes, StageTime, read_measured, read_provenance
from wgtune.build.format.manifest import MANIFEST
from wgtune.build.format.reader import Bundle
from wgtune.devices.device import Device
from wgtune.support.enums import Runtime
from wgtune.support.errors import BundleError

GPU = Device("vulkan:gpu-1", "vulkan", "v", "a", "GPU 1", "Maker 7", "discrete", False, {}, (), Runtime.WGPU, 0)
STEP = StageTime("unet", 100, run_s=0.05, alone_s=0.04, gpu_s=None, launch_s=0.001)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "dist")


def test_a_bundle_without_documents_has_neither(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert read_provenance(bundle) is None and read_measured(bundle) is None


def test_times_are_added_and_replaced_and_hashed_like_every_file(folder: Path) -> None:
    before = Bundle.open(folder)
    store_measured(folder, GPU, {"plan.json": ProgramTimes((STEP,), {"unet": 0.03})})
    faster = replace(STEP, run_s=0.045)
    store_measured(folder, GPU, {"plan.json": ProgramTimes((faster,), {})})
    bundle = Bundle.open(folder)
    assert bundle.manifest.documents == (MEASURED,)
    assert {name: info for name, info in bundle.manifest.files.items() if name != MEASURED} == before.manifest.files
    read = read_measured(bundle)
    assert read is not None and (read.device, read.driver) == ("vulkan:gpu-1", "Maker 7")
    assert read.programs == {"plan.json": ProgramTimes((faster,), {})} and faster.ratio == pytest.approx(0.04 / 0.045)
    assert not [path.name for path in folder.iterdir() if "partial" in path.name]
    (folder / MEASURED).write_bytes((folder / MEASURED).read_bytes().replace(b"0.045", b"0.001"))
    with pytest.raises(BundleError, match=r"measured\.json has the wrong SHA-256"):
        read_measured(Bundle.open(folder))


def test_times_are_refused_where_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        store_measured(tmp_path, GPU, {})


def given(folder: Path, name: str, document: Any) -> Bundle:
    """The bundle with this content under ``name``, listed and hashed."""
    data = json.dumps(document).encode()
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["documents"] = [name]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(folder)


def kernel(**changes: Any) -> dict[str, Any]:
    return {"name": "k", "workload": "w", "program": "p", "shaders": [], "source": "baseline", **changes}


def test_what_is_not_known_is_ignored(folder: Path) -> None:
    made = {"sessions": {}, "programs": {"plan.json": [kernel(later=1)]}, "later": 2}
    read = read_provenance(given(folder, PROVENANCE, made))
    assert read is not None
    (found,) = read.programs["plan.json"]
    assert found.trial is None and found.match is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "provenance.json is damaged"),
        ({"sessions": {}}, "programs: Field required"),
        ({"sessions": {}, "programs": {"p": [kernel(source="heard")]}}, r"programs\.p\[0\].source"),
        ({"sessions": {}, "programs": {"p": [kernel(shaders="a.wgsl")]}}, r"programs\.p\[0\].shaders"),
        ({"sessions": {"u": {}}, "programs": {}}, r"sessions.u.device: Field required"),
    ],
)
def test_a_damaged_document_is_refused_by_field(folder: Path, document: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_provenance(given(folder, PROVENANCE, document))


def test_documents_that_are_not_listed_are_not_read(folder: Path) -> None:
    (folder / PROVENANCE).write_text("{}")
    assert read_provenance(Bundle.open(folder)) is None
