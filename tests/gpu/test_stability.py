"""`wgtune report stability`: measures again, as trials that are never ranked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuning_kernels import capture_of, matmul, softmax
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.schema.records import SessionOutcome
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.devices.measure.job import MeasureJob, Measurement
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import TrialState
from wgtune.support.errors import DeviceError, UsageError
from wgtune.tuner.remeasure.stability import StabilityRequest, measure_again
from wgtune.tuner.session.events import Event
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune


class Silent:
    def on(self, event: Event) -> None: ...


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Any) -> str:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))
    with Store.open(str(tmp_path / "x.db")) as store:
        tune(TuneRequest(capture_of(matmul(), softmax()), device, TIERS["default"], trials=4), store, Silent())
    return str(tmp_path / "x.db")


def test_the_top_schedules_are_measured_again_and_nothing_else_changes(device, database, tmp_path):
    ids = [matmul().id, softmax().id]
    with Store.open(database) as store:
        before = store.best(device.key, ids), store.counts(device.key, ids), len(store.tried(device.key, ids[0]))
    page = tmp_path / "s.html"
    result = CliRunner().invoke(
        app, ["report", "stability", "--db", database, "--top", "3", "--rounds", "2", "--json", "--html", str(page)]
    )
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [len(kernel["before_s"]) for kernel in data["kernels"]] == [3, 3] and data["overall"]["pairs"] == 6
    assert -1 <= data["overall"]["tau"] <= 1 and data["change"] >= 0
    assert page.read_text("utf-8").count("<circle") == 6
    with Store.open(database) as store:
        assert (store.best(device.key, ids), len(store.tried(device.key, ids[0]))) == (before[0], before[2])
        after = store.counts(device.key, ids)
        assert {k: after[k][TrialState.OK] - before[1][k][TrialState.OK] for k in ids} == dict.fromkeys(ids, 6)
        (record, _) = store.sessions()
        assert record.info.reason == "stability" and record.outcome is SessionOutcome.COMPLETED
        assert record.info.model == "small" and record.info.budget == {"top": 3, "kernels": 2, "rounds": 2}
    again = CliRunner().invoke(app, ["report", "stability", "--db", database, "--no-measure", "--json"])
    assert json.loads(again.stdout) == data and data["rounds"] == 2 and data["halves"]["pairs"] == 6


def test_each_round_has_a_process_of_its_own_and_sessions_are_compared(device, database):
    started: list[int | None] = []

    class Watched(Worker):
        def measure(self, job: MeasureJob) -> Measurement:
            measurement = super().measure(job)
            started.append(self.pid)
            return measurement

    with Store.open(database) as store:
        request = StabilityRequest(device, store.models()[0].capture_key, [softmax().id], top=2, rounds=3)
        first = measure_again(request, store, lambda what, done: None, Watched)
        assert len(started) == 6 and len(set(started)) == 3
        assert started[0] == started[1] and started[2] == started[3] and started[4] == started[5]
        second = measure_again(replace(request, seed=1), store, lambda what, done: None)
    shown = CliRunner().invoke(app, ["report", "stability", "--db", database, "--no-measure"])
    assert shown.exit_code == 0 and f"--no-measure --against {first}" in shown.output
    arguments = ["report", "stability", "--db", database, "--no-measure", "--json", "--against", str(first)]
    compared = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (compared["session"], compared["against"], compared["overall"]["pairs"]) == (second, first, 1)


def test_what_cannot_be_measured_again_says_so(device, database, monkeypatch):
    with Store.open(database) as store:
        capture_key = store.models()[0].capture_key
        with pytest.raises(UsageError, match="no records of these kernels"):
            measure_again(StabilityRequest(device, capture_key, []), store, lambda what, done: None)
        # Another TVM's form of a kernel is refused in words, and the session does not stay open.
        with store.writing() as connection:
            connection.exec_driver_sql("UPDATE workload_form SET tvm_version = '0.1'")
        request = StabilityRequest(device, capture_key, [matmul().id], top=2)
        with pytest.raises(Exception, match=r"stored as TVM 0\.1 writes it"):
            measure_again(request, store, lambda what, done: None)
        assert store.sessions()[0].outcome is SessionOutcome.FAILED
    nothing = type("Found", (), {"devices": [], "problems": []})
    monkeypatch.setattr("wgtune.cli.report.measured.discover", lambda: nothing)
    result = CliRunner().invoke(app, ["report", "stability", "--db", database])
    assert isinstance(result.exception, DeviceError) and "--no-measure" in result.exception.hint


def test_a_device_under_another_driver_is_kept_as_it_is_now(device, database):
    with Store.open(database) as store:
        capture_key = store.models()[0].capture_key
        newer = replace(device, driver="a newer driver")
        session = measure_again(
            StabilityRequest(newer, capture_key, [softmax().id], top=2), store, lambda what, done: None
        )
        record = next(kept for kept in store.sessions() if kept.session_id == session)
        assert record.info.driver == "a newer driver"
