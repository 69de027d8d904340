"""`wgtune report fidelity`: one device's schedules measured on another, paired, and never ranked there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tuning_kernels import capture_of, matmul, softmax
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.queries.shared_schedules import shared_schedules
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.devices.limits import TIERS
from wgtune.reports.fidelity import fidelity
from wgtune.support.enums import Runtime
from wgtune.support.errors import UsageError
from wgtune.tuner.session.events import Event
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune


class Silent:
    def on(self, event: Event) -> None: ...


def test_schedules_of_one_device_are_measured_on_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_devices: list[Device]
) -> None:
    """Native llvmpipe against native SwiftShader."""
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))
    here, there = two_devices
    path, page = str(tmp_path / "x.db"), tmp_path / "f.html"
    with Store.open(path) as store:
        tune(TuneRequest(capture_of(matmul(), softmax()), here, TIERS["default"], trials=3), store, Silent())
        with pytest.raises(UsageError, match="no schedule that was measured both"):
            fidelity(store, (here.key, Runtime.WGPU), (there.key, Runtime.WGPU))
    words = ["report", "fidelity", "--db", path, "--against", there.key]
    result = CliRunner().invoke(app, [*words, "--measure", "--top", "3", "--json", "--html", str(page)])
    assert result.exit_code == 0, (result.output, result.exception)
    data = json.loads(result.stdout)
    assert (data["here"], data["there"]) == (here.key, there.key)
    assert {row["name"] for row in data["rows"]} == {"products", "norms and softmax"}
    assert data["overall"]["schedules"] == 6 and data["overall"]["ratio"] > 0 and -1 <= data["overall"]["tau"] <= 1
    assert page.read_text("utf-8").count("<circle") == 6
    with Store.open(path) as store:
        assert not store.best(there.key, [matmul().id, softmax().id]), "what was compared is not ranked"
        assert not shared_schedules(store, (here.key, Runtime.WGPU), (there.key, Runtime.WGPU), "other flags")
    # The comparison is kept, and the device tuned last is still the one that was tuned.
    again = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(again.stdout) == data
    labelled = CliRunner().invoke(app, [*words, "--label", "other flags"])
    assert isinstance(labelled.exception, UsageError) and "as 'other flags'" in labelled.exception.message


def test_a_browser_must_be_measured_or_named() -> None:
    result = CliRunner().invoke(app, ["report", "fidelity", "--against", "browser"])
    assert isinstance(result.exception, UsageError) and "--measure" in result.exception.hint
