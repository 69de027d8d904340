"""The read contract, kept alike by one database and by several that are read as one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_store import CAPTURE, CONV, LLVMPIPE, MATMUL, RADEON, add_demo, failed, measure, ok, session

from wgtune.database.exchange.release import write_release
from wgtune.database.queries.health import device_health
from wgtune.database.queries.layers import Layers
from wgtune.database.queries.trial_details import show_trial
from wgtune.database.reader import Reader
from wgtune.database.readonly import opened
from wgtune.database.schema.records import TrialKind
from wgtune.database.sql_reader import SqlReader
from wgtune.database.store import Store
from wgtune.support.enums import TrialState

IDS = [MATMUL.id, CONV.id]
CONTRACT = sorted(name for name in vars(Reader) if not name.startswith("_") or name in ("__enter__", "__exit__"))


def fill(store: Store) -> None:
    """A baseline of 9 s, schedules of 2 and 1 s for MATMUL, and one of 3 s for CONV."""
    add_demo(store)
    first, second = store.begin_session(session()), store.begin_session(session())
    measure(store, first, MATMUL, ok(9.0), "untuned", TrialKind.BASELINE)
    measure(store, second, MATMUL, ok(2.0), "slow")
    measure(store, second, MATMUL, ok(1.0), "fast")
    measure(store, second, CONV, ok(3.0), "conv")


@pytest.fixture
def release(tmp_path: Path) -> Iterator[SqlReader]:
    with Store.open(str(tmp_path / "lab.db")) as lab:
        fill(lab)
        path, _ = write_release(lab, "lab", tmp_path)
    with opened(str(path)) as reader:
        yield reader


@pytest.fixture(params=["memory", "sqlite", "postgresql", "release", "layers: release alone", "layers: both"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    """Readers that hold the same content, whatever it lies in."""
    if request.param in ("memory", "sqlite", "postgresql"):
        urls = {"sqlite": str(tmp_path / "own.db"), "memory": ""}
        url = urls[request.param] if request.param in urls else request.getfixturevalue("postgresql_url")
        with Store.open(url) if url else Store.memory() as store:
            fill(store)
            yield store
        return
    release = request.getfixturevalue("release")
    if request.param == "release":
        yield release
        return
    own = Store.memory() if "alone" in request.param else Store.open(str(tmp_path / "lab.db"))
    with Layers(own, [release]) as layers:
        yield layers


def test_every_reader_has_the_whole_contract_with_the_same_arguments() -> None:
    assert len(CONTRACT) == 19
    for kind in (SqlReader, Store, Layers):
        for name in CONTRACT:
            wanted, found = getattr(Reader, name), getattr(kind, name, None)
            if name == "name":
                continue  # a variable of the object
            assert found is not None, (kind, name)
            if inspect.isfunction(wanted):
                arguments = inspect.signature(found).parameters
                assert list(arguments) == list(inspect.signature(wanted).parameters), (kind, name)
                for argument, parameter in inspect.signature(wanted).parameters.items():
                    assert arguments[argument].default == parameter.default, (kind, name, argument)


def test_answers_are_the_same(reader: Reader) -> None:
    best = reader.best(LLVMPIPE.key, IDS)
    assert {key: (one.trace, one.latency_s) for key, one in best.items()} == {
        MATMUL.id: ("fast", 1.0),
        CONV.id: ("conv", 3.0),
    }
    assert {key: one.trace for key, one in reader.baselines(LLVMPIPE.key, IDS).items()} == {MATMUL.id: "untuned"}
    assert not reader.best(RADEON.key, IDS) and not reader.best(LLVMPIPE.key, IDS, fits=lambda needs: False)
    assert reader.times([LLVMPIPE.key], {MATMUL.id: ["slow"]}) == {(LLVMPIPE.key, MATMUL.id, "slow"): 2.0}
    assert sorted(one.trace for one in reader.tried(LLVMPIPE.key, MATMUL.id)) == ["fast", "slow", "untuned"]
    assert reader.counts(LLVMPIPE.key, IDS) == {MATMUL.id: {TrialState.OK: 3}, CONV.id: {TrialState.OK: 1}}
    assert [one.latency_s for one in reader.history(LLVMPIPE.key, IDS)] == [9.0, 2.0, 1.0, 3.0]
    assert [one.key for one in reader.devices()] == [LLVMPIPE.key]
    assert [one.capture_key for one in reader.models()] == [CAPTURE] and reader.model_kernels(CAPTURE)
    assert reader.workloads(IDS).keys() == set(IDS) and reader.aliases() == []
    assert len(reader.sessions()) >= 2 and len(reader.sessions(limit=1)) == 1
    assert reader.name and len(reader.layers) >= 1


def test_a_records_origin_is_a_trial_that_can_be_shown(reader: Reader) -> None:
    shown: dict[str, Any] = {}
    for key, record in reader.best(LLVMPIPE.key, IDS).items():
        origin = reader.origin(record)
        layer = next(one for one in reader.layers if one.name == origin.database)
        shown[key] = show_trial(layer, origin.session_id, origin.number)
        assert shown[key]["trace"] == record.trace and shown[key]["latency_s"] == record.latency_s
        assert origin.release == record.layer
        assert str(origin).startswith(f"trial {origin.number} of session {origin.session_id}")
    assert shown.keys() == set(IDS)


def test_layers_are_no_database_to_run_sql_on(release: SqlReader) -> None:
    with Layers(Store.memory(), [release]) as layers:
        assert not isinstance(layers, SqlReader)
        with pytest.raises(AttributeError, match="reading"):
            device_health(layers)  # type: ignore[arg-type]
        assert [health.device.key for layer in layers.layers for health in device_health(layer)] == [LLVMPIPE.key]


def test_the_origin_names_the_release_only_for_its_own_records(tmp_path: Path, release: SqlReader) -> None:
    with Layers(Store.open(str(tmp_path / "lab.db")), [release]) as layers:
        own = layers.origin(layers.best(LLVMPIPE.key, IDS)[MATMUL.id])
        assert own.release == "" and own.database == str(tmp_path / "lab.db")
    with Layers(Store.memory(), [release]) as layers:
        record = layers.best(LLVMPIPE.key, IDS)[MATMUL.id]
        found = layers.origin(record)
        assert found.release == Path(release.name).name and found.session_id < record.session_id
        assert str(found).endswith(f" of the release {found.release}")
        assert found.command == f"wgtune db show {found.session_id} {found.number} --db {release.name}"


def test_a_failed_trial_of_one_layer_is_counted_once(release: SqlReader, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "own.db")) as own:
        fill(own)
        measure(own, own.begin_session(session()), MATMUL, failed(TrialState.RUN_ERROR), "bad")
        counts = Layers(own, [release]).counts(LLVMPIPE.key, [MATMUL.id])
        assert counts == {MATMUL.id: {TrialState.OK: 3, TrialState.RUN_ERROR: 1}}
