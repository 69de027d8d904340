"""Kernels of half floats from a session to records, reports and TVM's own files; devices without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuning_kernels import capture_of, conv2d, halved, matmul
from tvm.s_tir import meta_schedule as ms
from typer.testing import CliRunner

from wgtune.cli import inputs
from wgtune.cli import tune as tune_command
from wgtune.cli.app import app
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.reports.latency import latency
from wgtune.support.enums import ComputePrecision, Runtime
from wgtune.support.errors import UsageError
from wgtune.tuner.codegen.traces import replay, schedulable_module
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.interop.json_export import export_pair
from wgtune.tuner.ir import Capture
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune

F16 = ComputePrecision.F16


class Silent:
    def on(self, _event: Any) -> None:
        """Of no event."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))
    with Store.open(f"sqlite:///{tmp_path / 'db'}") as opened:
        yield opened


def half_capture(*kernels: Any) -> Capture:
    capture = capture_of(*kernels)
    return replace(capture, options=replace(capture.options, compute=F16))


def test_they_are_tuned_verified_reported_and_exported(device: Device, store: Store, tmp_path: Path) -> None:
    if "shader-f16" not in device.features:
        pytest.skip("the adapter has no half floats")
    kernels = [halved(matmul()), halved(conv2d())]
    capture = half_capture(*kernels)
    tune(TuneRequest(capture, device, TIERS["default"], trials=3), store, Silent())
    best = store.best(device.key, [kernel.id for kernel in kernels])
    assert set(best) == {kernel.id for kernel in kernels}
    for kernel in kernels:
        program = emit_wgsl(replay(kernel, best[kernel.id].trace).mod, TIERS["default"])
        assert program.digest == best[kernel.id].program_digest and program.needs.features == ("shader-f16",)
    assert store.models()[0].options["compute"] == "f16"
    report = latency(store, capture.key, device.key, 20)
    assert {row.workload_id for row in report.rows} == set(best) and not report.image.missing
    export_pair(store, tmp_path / "out", device.key, Runtime.WGPU, top=1)
    theirs = ms.database.JSONDatabase(work_dir=str(tmp_path / "out"), allow_missing=False)
    assert len(theirs) == 2 and all(theirs.has_workload(schedulable_module(kernel)) for kernel in kernels)


def test_a_device_without_them_is_refused_before_anything_is_measured(device: Device, store: Store) -> None:
    without = replace(device, features=("timestamp-query",))
    request = TuneRequest(half_capture(halved(matmul())), without, TIERS["default"], trials=1)
    with pytest.raises(UsageError, match="has no half floats"):
        tune(request, store, Silent())
    assert not store.sessions(device_key=device.key)


def test_the_command_refuses_it_before_the_model_is_captured(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(device, features=())
    monkeypatch.setattr(tune_command, "found_devices", lambda specs: [without])
    monkeypatch.setattr(inputs, "capture_model", lambda *_: pytest.fail("captured"))
    result = CliRunner().invoke(app, ["tune", "--model", "sd-v1-5", "--compute", "f16"])
    assert isinstance(result.exception, UsageError) and "shader-f16" in str(result.exception)
