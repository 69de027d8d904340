"""`wgtune build` with schedules of other devices: each step of the lookup on the screen and in the manifest, and none
of them counted as measured or verified."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_store import RADEON, ok, session
from typer.testing import CliRunner

from wgtune.build.format.documents import read_provenance
from wgtune.build.format.manifest import Manifest
from wgtune.build.format.reader import Bundle
from wgtune.cli.app import app
from wgtune.database.exchange.release import write_release
from wgtune.database.queries.trial_details import show_trial
from wgtune.database.schema.records import DeviceInfo, TrialKind, TrialStart, WorkloadInfo
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.support.hashing import digest_of
from wgtune.support.serialization import plain
from wgtune.tuner.capture.model_capture import capture_model
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel

pytestmark = pytest.mark.slow

HERE = DeviceInfo("vulkan:rtx-3060", "vulkan", "nvidia", "ampere", "NVIDIA GeForce RTX 3060", False)
LENDERS = {
    "model": replace(HERE, key="gl:rtx-3060", backend="gl"),
    "architecture": replace(HERE, key="vulkan:rtx-3070", model="NVIDIA GeForce RTX 3070"),
    "vendor": replace(HERE, key="vulkan:rtx-4060", model="NVIDIA GeForce RTX 4060", architecture="lovelace"),
    "portable": RADEON,
}


def record(store: Store, device: DeviceInfo, kernel: Kernel, seconds: float) -> None:
    """A verified schedule of a search: the kernel's last untuned one, which differs from the first for most."""
    *_, schedule = baseline_schedules(kernel, TIERS["default"])
    program = emit_wgsl(schedule.mod, TIERS["default"])
    store.add_workloads([WorkloadInfo(kernel.id, kernel.name, kernel.text, (), (), (), 0.0, 0)])
    needs = program.to_json()["needs"]
    start = TrialStart(
        store.begin_session(session(device)), kernel.id, TrialKind.SEARCH, trace_to_json(schedule), program.digest,
        needs, len(program.dispatches), 0,
    )  # fmt: skip
    store.add_trial(start, ok(seconds))


@pytest.fixture(scope="module")
def database(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel of the text encoder with a record of the device itself, and one with each kind of relative's."""
    path = tmp_path_factory.mktemp("borrowed") / "records.db"
    capture = capture_model(resolve_model(str(demo_folder)))
    kernels = [capture.kernels[one] for one in capture.stages["clip"].calls_per_kernel()]
    with Store.open(str(path)) as store:
        for device, kernel in zip([HERE, *LENDERS.values()], kernels, strict=False):
            record(store, device, kernel, 1e-3)
        # Whatever a relative's time is, the device's own record stays.
        record(store, LENDERS["model"], kernels[0], 1e-9)
    return path


def build(demo_folder: Path, database: Path, output: Path, *options: str) -> str:
    where = ["--model", str(demo_folder), "-o", str(output), "--db", str(database), "--no-releases"]
    small = ["--device", HERE.key, "--no-page", "--max-steps", "1", "--scheduler", "ddim"]
    result = CliRunner().invoke(app, ["build", *where, *small, *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_each_step_is_labelled_and_none_counts_as_verified(demo_folder: Path, database: Path, tmp_path: Path) -> None:
    told = build(demo_folder, database, tmp_path / "dist")
    manifest = Bundle.open(tmp_path / "dist").manifest
    tuned = manifest.programs[0].tuned
    assert [(one.match, one.device, one.kernels) for one in tuned.borrowed] == [
        (match, device.key, 1) for match, device in LENDERS.items()
    ]
    assert (tuned.device, tuned.from_records) == (HERE.key, 1)
    assert tuned.from_baseline == tuned.kernels - 1 - len(LENDERS)
    shares = [one.time_share for one in tuned.borrowed]
    assert all(share is not None and 0 < share < 1 for share in shares)
    assert tuned.baseline_time_share is not None
    assert sum(share or 0 for share in shares) + tuned.baseline_time_share < 1
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert f"1 improved, 0 where the baseline won, 4 borrowed, {tuned.from_baseline} never measured" in told
    lines = [line for line in told.splitlines() if line.startswith("borrowed")]
    words = ["the same model", "the same architecture", "the same vendor", "another GPU"]
    for line, device, near in zip(lines, LENDERS.values(), words, strict=True):
        assert f"1 kernel from {device.key} ({near}), not verified here, about" in line

    (alone,) = json.loads(build(demo_folder, database, tmp_path / "alone", "--borrow", "exact", "--json"))["programs"]
    assert (alone["borrowed"], alone["from_records"], alone["improved"]) == ([], 1, 1)
    assert alone["from_baseline"] == tuned.from_baseline + len(LENDERS)
    assert shaders(tmp_path / "alone") != shaders(tmp_path / "dist")


def shaders(folder: Path) -> set[bytes]:
    bundle = Bundle.open(folder)
    return {bundle.read(shader.file) for shader in bundle.programs[0].plan.shaders}


def test_the_record_of_every_kernel_is_named(demo_folder: Path, database: Path, tmp_path: Path) -> None:
    build(demo_folder, database, tmp_path / "dist")
    bundle = Bundle.open(tmp_path / "dist")
    found = read_provenance(bundle)
    assert found is not None and bundle.manifest.documents == ("provenance.json",)
    (program,), (kernels,) = bundle.programs, found.programs.values()
    assert list(found.programs) == [program.info.plan] and len(kernels) == program.info.tuned.kernels
    own = [one for one in kernels if one.source == "record"]
    borrowed = {one.match: one for one in kernels if one.source == "borrowed"}
    untuned = [one for one in kernels if one.source == "baseline"]
    assert (len(own), len(untuned)) == (1, program.info.tuned.from_baseline) and set(borrowed) == set(LENDERS)
    assert all(one.trial is None and one.match is None for one in untuned)
    with Store.open(str(database)) as store:
        sessions = {kept.uid: kept for kept in store.sessions()}
        best = store.best(HERE.key, [own[0].workload])[own[0].workload]
        for one in (*own, *borrowed.values()):
            assert one.trial is not None
            stored = show_trial(store, sessions[one.trial.session].session_id, one.trial.number)
            assert (stored["workload"], stored["program_digest"]) == (one.workload, one.trial.program)
            assert (stored["latency_s"], stored["kind"].value) == (one.trial.latency_s, one.trial.kind)
            assert digest_of(stored["trace"]) == one.trial.schedule
            assert found.sessions[one.trial.session].device == sessions[one.trial.session].info.device.key
    assert own[0].trial is not None and own[0].trial.latency_s == best.latency_s and own[0].match is None
    assert own[0].program == best.program_digest
    assert {session.database for session in found.sessions.values()} == {"records.db"}
    glue = {"kernels/schedule-0.wgsl", "kernels/guide-0.wgsl", "kernels/image-0.wgsl"}
    assert {name for one in kernels for name in one.shaders} == {s.file for s in program.plan.shaders} - glue

    told = CliRunner().invoke(app, ["report", "bundle", str(tmp_path / "dist")])
    assert told.exit_code == 0, told.output
    rows = told.stdout.splitlines()
    for one in kernels:
        (row,) = [row for row in rows if row.startswith(one.name)]
        if one.source == "record":
            assert " record " in row and "1.00 ms" in row and "records.db" in row
        elif one.source == "borrowed":
            assert f"borrowed from {LENDERS[str(one.match)].key}" in row
        else:
            assert "baseline, never measured" in row
    shown = CliRunner().invoke(app, ["report", "bundle", str(tmp_path / "dist"), "--json"])
    assert json.loads(shown.stdout)["provenance"]["programs"]["plan.json"] == plain(kernels)
    uid = own[0].trial.session
    for name in (uid, uid[:8]):
        trial = CliRunner().invoke(app, ["db", "show", name, "1", "--db", str(database), "--json"])
        assert json.loads(trial.stdout)["workload"] == own[0].workload


def test_the_name_of_a_release_is_told(demo_folder: Path, database: Path, tmp_path: Path) -> None:
    with Store.open(str(database)) as store:
        release, _ = write_release(store, "lab", tmp_path / "out")
    where = ["--model", str(demo_folder), "-o", str(tmp_path / "dist"), "--db", str(tmp_path / "own.db")]
    Store.open(str(tmp_path / "own.db")).close()
    small = ["--device", HERE.key, "--no-page", "--max-steps", "1", "--scheduler", "ddim"]
    result = CliRunner().invoke(app, ["build", *where, *small, "--no-releases", "--releases", str(release)])
    assert result.exit_code == 0, result.output
    found = read_provenance(Bundle.open(tmp_path / "dist"))
    assert found is not None
    assert {session.database for session in found.sessions.values()} == {release.name}
