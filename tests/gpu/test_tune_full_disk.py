"""A disk that fills up while tuning: the run ends in words, keeps what it committed, and goes on once there is room."""

from __future__ import annotations

import pytest
from tuning_kernels import capture_of, matmul, softmax

from wgtune.database.exchange import admin
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.support.enums import TrialState
from wgtune.support.errors import DatabaseError
from wgtune.tuner.session.events import Event, TrialEnded
from wgtune.tuner.session.request import TuneRequest
from wgtune.tuner.session.session import tune


class FillsUp:
    """Lets SQLite take no further page after two trials, as a full disk does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ended: list[TrialState] = []

    def on(self, event: Event) -> None:
        if isinstance(event, TrialEnded):
            self.ended.append(event.state)
            if len(self.ended) == 2:
                with self.store.reading() as connection:
                    connection.exec_driver_sql("PRAGMA max_page_count = 1")  # SQLite makes it what there is


class Counts:
    def __init__(self) -> None:
        self.ended = 0

    def on(self, event: Event) -> None:
        self.ended += isinstance(event, TrialEnded)


def kept(store, request, state):
    ids = list(request.capture.kernels)
    return sum(states.get(state, 0) for states in store.counts(request.device.key, ids).values())


def test_a_full_disk_ends_the_run_and_loses_nothing(device, tmp_path, monkeypatch):
    monkeypatch.setenv("WGTUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "x.db"
    request = TuneRequest(capture_of(matmul(), softmax()), device, TIERS["default"], trials=8)
    with Store.open(str(path)) as store:
        recorder = FillsUp(store)
        with pytest.raises(DatabaseError, match="full") as caught:
            tune(request, store, recorder)
        assert "make room" in caught.value.hint
    with Store.open(str(path)) as store:
        for state in set(recorder.ended):
            assert kept(store, request, state) == recorder.ended.count(state), "what was shown is kept"
        counter = Counts()
        tune(request, store, counter)
        assert counter.ended == 2 + 2 * 8 - len(recorder.ended), "the rest, and nothing twice"
        # The full disk may refuse to close the session, too, and of a process that lives nobody says that it gave up.
        assert kept(store, request, TrialState.RUNNING) <= 1
    assert admin.check(str(path)) == []
