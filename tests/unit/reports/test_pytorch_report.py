"""`wgtune report pytorch`: stages timed in PyTorch, beside records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from synthetic_store import (
    CAPTURE,
    CLAMP,
    CONV,
    EMBED,
    LLVMPIPE,
    MATMUL,
    SOFTMAX,
    add_demo,
    baseline,
    measure,
    ok,
    session,
)
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.cli.demo.model import make_demo_pipeline
from wgtune.database.store import Store
from wgtune.reports.pytorch import beside_pytorch
from wgtune.support.errors import CaptureError, UsageError
from wgtune.tuner.capture.sources import resolve_model
from wgtune.tuner.ir import CaptureOptions
from wgtune.tuner.remeasure.pytorch_baseline import (
    Mode,
    StageTime,
    available_modes,
    default_device,
    device_name,
    time_stages,
)

EAGER, COMPILED = Mode(False, False), Mode(True, False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_pipeline(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Baselines of 4 ms and records of 1 ms for every kernel."""
    with Store.open(str(tmp_path / "x.db")) as store:
        add_demo(store)
        made = store.begin_session(session())
        for kernel in (EMBED, SOFTMAX, MATMUL, CONV, CLAMP):
            baseline(store, made, kernel, ok(4e-3))
            measure(store, made, kernel, ok(1e-3), "tuned")
    return str(tmp_path / "x.db")


def test_stages_run_eagerly_and_compiled(folder):
    source, said = resolve_model(str(folder)), []
    found = list(
        time_stages(
            source,
            CaptureOptions(),
            "cpu",
            [EAGER, COMPILED],
            lambda what, done: said.append((what, done)),
            ["clip", "unet"],
            backend="aot_eager",
        )
    )
    assert [(one.stage, one.mode.name) for one in found] == [
        ("clip", "eager"),
        ("clip", "compile"),
        ("unet", "eager"),
        ("unet", "compile"),
    ]
    assert all(len(one.samples_s) >= 5 and min(one.samples_s) > 0 and not one.error for one in found)
    assert found[0].difference is None and found[1].difference < 1e-5 and found[3].difference < 1e-5
    assert [done for _, done in said] == sorted(done for _, done in said) and said[-1][1] == 0.75


def test_what_fails_in_one_mode_does_not_keep_the_others(folder, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nand a page of other things")

    found = list(
        time_stages(
            resolve_model(str(folder)),
            CaptureOptions(),
            "cpu",
            [COMPILED, EAGER],
            lambda what, done: None,
            ["clip"],
            broken,
        )
    )
    assert not found[0].samples_s and "no compiler here" in found[0].error and "page" not in found[0].error
    assert found[1].samples_s and not found[1].error


def test_float32_means_float32_while_it_is_timed_and_what_was_set_comes_back(folder, monkeypatch):
    seen = []
    network = torch.nn.Module.__call__

    def spy(module, *arguments, **named):
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return network(module, *arguments, **named)

    monkeypatch.setattr(torch.nn.Module, "__call__", spy)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for tf32 in (False, True):
        seen.clear()
        list(
            time_stages(
                resolve_model(str(folder)), CaptureOptions(), "cpu", [Mode(False, tf32)], lambda *a: None, ["clip"]
            )
        )
        assert set(seen) == {(tf32, tf32)}
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_modes_and_devices(monkeypatch):
    assert available_modes("cpu") == [EAGER, COMPILED] and available_modes("cpu", [True]) == [COMPILED]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert [one.name for one in available_modes("cuda")] == ["eager", "eager, TF32", "compile", "compile, TF32"]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert available_modes("cuda") == [EAGER, COMPILED]
    assert device_name("cpu") == "cpu" and default_device() in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="cannot use the device 'nonsense'"):
        device_name("nonsense")


def test_sums_are_put_beside_each_other(database):
    """By hand: the UNet launches 17 kernels a step, 20 steps; CLIP 7, for two prompts; the VAE 3."""
    times = [
        StageTime(stage, mode, (seconds, seconds, seconds), 1.0, difference)
        for stage, eager in (("clip", 0.01), ("unet", 0.05), ("vae", 0.002))
        for mode, seconds, difference in ((EAGER, eager, None), (COMPILED, eager / 2, 1e-6))
    ]
    with Store.open(database) as store:
        report = beside_pytorch(store, CAPTURE, LLVMPIPE.key, 20, times, "cpu", "2.13.0")
        rows = {row.name: row for row in report.rows}
        runs = rows["unet"].runs
        assert rows["unet"].untuned_s == pytest.approx(17 * 4e-3) and rows["unet"].tuned_s == pytest.approx(17e-3)
        assert rows["vae"].tuned_s == pytest.approx(3e-3) and rows["vae"].ratio == pytest.approx(3e-3 / 1e-3)
        image = report.image
        assert image.tuned_s == pytest.approx(runs * 17e-3 + rows["clip"].runs * 7e-3 + 3e-3)
        assert image.pytorch_s["compile"] == pytest.approx((runs * 0.05 + rows["clip"].runs * 0.01 + 0.002) / 2)
        broken = [replace(times[0], samples_s=(), error="OutOfMemoryError: too large"), *times[1:]]
        partly = beside_pytorch(store, CAPTURE, LLVMPIPE.key, 20, broken, "cpu", "2.13.0")
        assert set(partly.image.pytorch_s) == {"compile"}
    console = Console(width=200, record=True, force_terminal=False)
    report.render(console)
    partly.render(console)
    text = console.export_text()
    assert "PyTorch compile" in text and "clip, eager: OutOfMemoryError: too large" in text and "1e-06" in text
    assert "Tuned, one image takes" in text
    with Store.open(database) as store:
        few = beside_pytorch(store, CAPTURE, LLVMPIPE.key, 20, times[:2], "cpu", "2.13.0")
    assert few.image.name == "these stages" and few.sentences()[0].startswith("Tuned, these stages take")
    data = json.loads(json.dumps(report.to_json()))
    assert data["rows"][0]["pytorch_s"]["eager"] == 0.01 and data["times"][0]["mode"] == "eager"
    assert data["image"]["ratio"] == pytest.approx(image.tuned_s / image.pytorch_s["compile"])


def test_the_command(folder, database, monkeypatch):
    words = ["report", "pytorch", "--db", database, "--no-releases", "--torch-device", "cpu", "--mode", "eager"]
    result = CliRunner().invoke(app, [*words, "--stage", "clip", "--source", str(folder), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    data = json.loads(result.stdout)
    assert [row["name"] for row in data["rows"]] == ["clip"] and data["rows"][0]["ratio"] > 0
    unknown = CliRunner().invoke(app, words)
    assert isinstance(unknown.exception, UsageError) and "--source" in unknown.exception.hint

    wrong = CliRunner().invoke(app, [*words, "--source", str(folder), "--stage", "clop"])
    assert isinstance(wrong.exception, CaptureError) and "its stages: clip, unet, vae" in wrong.exception.hint

    def interrupted(*arguments):
        yield StageTime("clip", EAGER, (0.5, 0.5))
        raise KeyboardInterrupt

    monkeypatch.setattr("wgtune.tuner.remeasure.pytorch_baseline.time_stages", interrupted)
    stopped = CliRunner().invoke(app, [*words, "--source", str(folder)])
    assert stopped.exit_code == 130 and "500 ms" in stopped.output
