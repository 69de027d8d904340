"""Sessions on a device whose speed changes, and the state of its caches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tuning_kernels import capture_of, matmul, softmax

from wgtune.database.schema.records import TrialKind
from wgtune.database.schema.rows import trial
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.devices.worker.worker import Worker
from wgtune.support.enums import CacheState, TrialState
from wgtune.support.errors import UsageError
from wgtune.tuner.session import drift
from wgtune.tuner.session.events import Drifted, Event
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(f"sqlite:///{tmp_path / 'db'}") as opened:
        yield opened


def test_drift_is_told_booked_and_makes_trials_repeated(device, store, monkeypatch):
    """The device takes three times as long from the fifth measurement on, by a worker that says so."""
    real, measured = Worker.measure, []

    def throttled(worker: Worker, job: Any) -> Any:
        result = real(worker, job)
        measured.append(result)
        middle = len(job.program.shaders[0].source) * 1e-6  # nothing but the program: no noise of this machine's
        samples = tuple(middle * (3 if len(measured) >= 5 else 1) for _ in range(8))
        return replace(result, samples_s=samples) if result.state is TrialState.OK else result

    monkeypatch.setattr(Worker, "measure", throttled)
    monkeypatch.setattr(drift, "INTERVAL_S", 0.0)
    monkeypatch.setattr(drift, "_REPEAT_SHARE", 1.0)
    recorder = Recorder()
    kernel = matmul()
    request = TuneRequest(capture_of(kernel, softmax()), device, TIERS["default"], trials=3)
    summary = tune(request, store, recorder)
    told = [event for event in recorder.events if isinstance(event, Drifted)]
    assert len(told) == 1 and told[0].ratio == pytest.approx(3)
    assert summary.drift == (told[0].message,) and "+200.0 %" in told[0].message
    (record,) = store.sessions()
    assert record.note == told[0].message
    with store.reading() as connection:
        rows = connection.execute(select(trial.c.kind, trial.c.repeat, trial.c.state)).all()
    checks = [row for row in rows if row.kind is TrialKind.CHECK]
    repeats = [row for row in rows if row.repeat]
    assert checks and not any(row.repeat for row in checks)
    assert repeats and len(rows) == sum(summary.trials.values())
    # The best of each kernel is what the database says after all that, and nothing was overwritten.
    for identity, best in store.best(device.key, [k.id for k in (kernel, softmax())]).items():
        assert best.latency_s <= store.baselines(device.key, [identity])[identity].latency_s


def test_caches_are_cold_by_choice_and_never_mixed_with_warm_ones(device, store):
    request = TuneRequest(capture_of(matmul()), device, TIERS["default"], trials=1, cache=CacheState.COLD)
    assert tune(request, store, Recorder()).measured == 1
    assert store.sessions()[0].info.cache is CacheState.COLD
    with pytest.raises(UsageError, match="taken with cold caches") as raised:
        tune(replace(request, cache=CacheState.WARM), store, Recorder())
    assert "--cache cold" in raised.value.hint and "--db" in raised.value.hint
