"""A device starts from its relatives' best schedules: tried after the baseline, verified here, and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from tuning_kernels import capture_of, softmax

from wgtune.database.schema.records import TrialKind
from wgtune.database.schema.rows import trial
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.support.enums import TrialState
from wgtune.tuner.session.events import Event, TrialEnded
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))
    with Store.open(f"sqlite:///{tmp_path / 'db'}") as opened:
        yield opened


def kinds(recorder: Recorder) -> list[TrialKind]:
    return [event.kind for event in recorder.events if isinstance(event, TrialEnded)]


def test_relatives_come_between_baseline_and_search(device, store):
    kernel = softmax()
    request = TuneRequest(capture_of(kernel), device, TIERS["default"], trials=3)
    tune(request, store, Recorder())
    # What was measured becomes another device's, as if it had come by a merge.
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE device SET key = 'vulkan:relative'")
        slow = update(trial).where(trial.c.kind == TrialKind.BASELINE)
        connection.execute(slow.values(latency_s=1000.0, samples_s=[1000.0]))
    best = store.best("vulkan:relative", [kernel.id])[kernel.id]
    assert best.kind is TrialKind.SEARCH

    recorder = Recorder()
    tune(replace(request, transfer=False, trials=0), store, recorder)
    assert kinds(recorder) == [TrialKind.BASELINE]
    assert set(store.counts(device.key, [kernel.id])[kernel.id].values()) == {1}

    recorder = Recorder()
    summary = tune(replace(request, trials=1), store, recorder)
    assert kinds(recorder) == [TrialKind.TRANSFER, TrialKind.SEARCH]
    tried = [t for t in store.tried(device.key, kernel.id) if t.kind is TrialKind.TRANSFER]
    assert [(t.state, t.trace) for t in tried] == [(TrialState.OK, best.trace)]
    assert sum(summary.trials.values()) == 2
    own = store.best(device.key, [kernel.id])[kernel.id]
    assert own.device_key == device.key
    assert own.latency_s == min(t.latency_s for t in store.tried(device.key, kernel.id) if t.latency_s is not None)

    again = tune(replace(request, trials=1), store, Recorder())
    assert again.session_id is None


def test_what_nobody_verified_is_tried_and_verified(device, store):
    """A time that stock MetaSchedule measured, say, is no record: wgtune measures the schedule itself, once."""
    kernel = softmax()
    request = TuneRequest(capture_of(kernel), device, TIERS["default"], trials=2)
    tune(request, store, Recorder())
    best = store.best(device.key, [kernel.id])[kernel.id]
    with store.writing() as connection:
        connection.exec_driver_sql("UPDATE trial SET state = 'unverified', max_error = NULL WHERE state = 'ok'")
    assert store.best(device.key, [kernel.id]) == {}

    recorder = Recorder()
    tune(replace(request, trials=0), store, recorder)
    assert kinds(recorder)[0] is TrialKind.BASELINE and set(kinds(recorder)[1:]) == {TrialKind.TRANSFER}
    # Of near ties another may be the fastest today.
    verified = {t.trace for t in store.tried(device.key, kernel.id) if t.state is TrialState.OK}
    assert best.trace in verified and store.best(device.key, [kernel.id])[kernel.id].trace in verified
    again = Recorder()
    tune(replace(request, trials=0), store, again)
    assert kinds(again) == []
