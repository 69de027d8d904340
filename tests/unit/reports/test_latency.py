"""Latency: baseline against best for each kernel, and sums of launches × latency per stage and image."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_database import fill
from rich.console import Console
from synthetic_store import (
    CAPTURE,
    CLAMP,
    CONV,
    EMBED,
    KERNELS,
    LLVMPIPE,
    MATMUL,
    SOFTMAX,
    add_demo,
    baseline,
    measure,
    ok,
    session,
)

from wgtune.database.schema.records import TrialKind
from wgtune.database.store import Store
from wgtune.reports.latency import latency
from wgtune.tuner.ir import Call, Capture, CaptureOptions, Stage


@pytest.fixture
def store(tmp_path):
    with Store.open(str(tmp_path / "test.db")) as store:
        fill(store)
        yield store


def test_a_tuned_kernel(store):
    [row] = [row for row in latency(store, CAPTURE, LLVMPIPE.key, 20).rows if row.workload_id == MATMUL.id]
    assert (row.baseline_s, row.best_s, row.speedup) == (4e-3, 1e-3, 4.0)
    assert row.launches == 2 * 6 + 20 * 10 and row.stages == {"clip": 12, "unet": 200}
    assert row.image_s == pytest.approx(0.212)
    assert row.gflops == pytest.approx(4e9 / 1e-3 / 1e9) and row.gbytes == pytest.approx((12 << 20) / 1e-3 / 1e9)
    assert row.verified and (row.max_error, row.rtol, row.atol) == (2.5e-6, 1e-3, 1e-4)
    assert (row.trials, row.failures, row.samples, row.timer) == (7, 3, 5, "timestamp")
    # Samples 0.9, 1, 1, 1.1, 1.3 ms: the quartiles are 1.0 and 1.1 around a median of 1.
    assert row.spread == pytest.approx(0.1)


def test_kernels_without_gain_or_time(store):
    rows = {row.workload_id: row for row in latency(store, CAPTURE, LLVMPIPE.key, 20).rows}
    assert (rows[CONV.id].best_s, rows[CONV.id].best_kind, rows[CONV.id].speedup) == (8e-3, TrialKind.BASELINE, 1.0)
    assert rows[CONV.id].spread is None
    for key in (EMBED.id, CLAMP.id):
        row = rows[key]
        assert (row.best_s, row.speedup, row.gflops, row.image_s, row.verified) == (None, None, None, None, False)


def test_longest_first_and_no_time_last(store):
    ids = [row.workload_id for row in latency(store, CAPTURE, LLVMPIPE.key, 20).rows]
    assert ids[:3] == [CONV.id, MATMUL.id, SOFTMAX.id] and set(ids[3:]) == {EMBED.id, CLAMP.id}


def test_totals(store):
    report = latency(store, CAPTURE, LLVMPIPE.key, 20)
    clip, unet, vae = report.stages
    assert [(total.name, total.runs, total.missing) for total in report.stages] == [
        ("clip", 2, 1),
        ("unet", 20, 0),
        ("vae", 1, 1),
    ]
    assert (clip.baseline_s, clip.best_s) == pytest.approx((12 * 4e-3, 12 * 1e-3))
    assert (unet.baseline_s, unet.best_s) == pytest.approx(
        (200 * 4e-3 + 80 * 2e-3 + 60 * 8e-3, 200 * 1e-3 + 80 * 2e-3 + 60 * 8e-3)
    )
    assert (vae.baseline_s, vae.best_s) == pytest.approx((2 * 8e-3, 2 * 8e-3))
    assert report.image.best_s == pytest.approx(clip.best_s + unet.best_s + vae.best_s)
    assert report.image.baseline_s == pytest.approx(clip.baseline_s + unet.baseline_s + vae.baseline_s)
    assert (report.image.name, report.image.missing) == ("image", 2)


def test_a_kernel_without_a_baseline_counts_with_its_best(tmp_path):
    with Store.open(str(tmp_path / "x.db")) as store:
        add_demo(store)
        measure(store, store.begin_session(session()), MATMUL, ok(1e-3), "searched")
        report = latency(store, CAPTURE, LLVMPIPE.key, 20)
    assert report.image.baseline_s == report.image.best_s == pytest.approx(0.212)
    assert any("no verified baseline" in line for line in report.sentences())


@given(steps=st.integers(1, 100), batch=st.integers(1, 8), guidance=st.booleans())
@settings(deadline=None, max_examples=10)
def test_launches_are_those_of_the_capture(tmp_path_factory, steps, batch, guidance):
    stages = {}
    for kernel in KERNELS:
        stage = stages.setdefault(kernel.stage, Stage(kernel.stage, [], [], [], [], [], []))
        stage.calls += [Call(kernel.workload_id, ())] * kernel.calls
    capture = Capture(CAPTURE, "demo", CaptureOptions(batch=batch, guidance=guidance), stages, {})
    with Store.open(str(tmp_path_factory.mktemp("db") / "x.db")) as store:
        add_demo(store, batch=batch, guidance=guidance)
        store.begin_session(session())
        report = latency(store, CAPTURE, LLVMPIPE.key, steps)
    found = {(stage, row.workload_id): count for row in report.rows for stage, count in row.stages.items()}
    assert found == capture.calls_per_image(steps)
    assert report.per_what == ("image" if batch == 1 else f"batch of {batch} images")


def test_json(store):
    data = json.loads(json.dumps(latency(store, CAPTURE, LLVMPIPE.key, 20).to_json()))
    assert data["report"] == "latency" and data["model"]["name"] == "demo" and data["per"] == "image"
    assert data["image"]["speedup"] == pytest.approx(data["image"]["baseline_s"] / data["image"]["best_s"])
    assert [stage["name"] for stage in data["stages"]] == ["clip", "unet", "vae"]
    first = data["kernels"][0]
    assert first["name"] == CONV.name and first["best_kind"] == "baseline" and first["image_s"] == pytest.approx(0.496)
    assert data["kernels"][-1]["best_s"] is None
    assert data["provenance"]["drivers"] == ["Mesa 22.3.6"] and data["provenance"]["tiers"] == ["default"]


@pytest.mark.parametrize(("width", "terminal"), [(80, True), (160, True), (80, False)])
def test_the_printed_report(store, width, terminal):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    latency(store, CAPTURE, LLVMPIPE.key, 20).render(console)
    text = console.file.getvalue()
    if terminal:
        assert all(len(line) <= width for line in text.splitlines()[1:])
    for word in (
        "baseline ms",
        "best ms",
        "4.00 ×",
        "868 ms",
        "1.73 ×",
        "no verified time",
        "2 of 5 kernels stand at",
        "software adapter",
    ):
        assert word in text
    if width == 160 or not terminal:
        assert "GFLOP/s" in text and "4,000" in text


def test_nothing_measured_at_all(tmp_path):
    with Store.open(str(tmp_path / "x.db")) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        report = latency(store, CAPTURE, LLVMPIPE.key, 20)
        report.render(Console(file=io.StringIO(), width=80))
        assert (report.image.best_s, report.image.speedup, report.image.missing) == (0.0, None, 5)
        assert "5 of 5 kernels have no verified time" in report.sentences()[0]
        baseline(store, session_id, CLAMP, ok(0.0))
        assert latency(store, CAPTURE, LLVMPIPE.key, 20).rows[0].speedup is None
