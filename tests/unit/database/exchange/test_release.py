"""Releases: small, the same bytes for the same content, never written to, checked against their manifest."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_store import CAPTURE, CONV, LLVMPIPE, MATMUL, RADEON, add_demo, baseline, failed, measure, ok, session

from wgtune.database.exchange.admin import check
from wgtune.database.exchange.merge import merge
from wgtune.database.exchange.release import manifest_path, write_release
from wgtune.database.queries import layers as layers_module
from wgtune.database.queries.layers import open_layers, release_files
from wgtune.database.readonly import opened
from wgtune.database.store import Store
from wgtune.support.enums import TrialState
from wgtune.support.errors import DatabaseError, UsageError


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    path = tmp_path / "tuned.db"
    with Store.open(str(path)) as store:
        add_demo(store)
        first = store.begin_session(session())
        baseline(store, first, MATMUL, ok(0.09))
        for number in range(5):
            measure(store, first, MATMUL, ok(0.01 + number / 100), f"trace {number}")
        measure(store, first, CONV, failed(TrialState.WRONG_RESULT), "wrong")
        second = store.begin_session(session(RADEON))
        measure(store, second, CONV, ok(0.02), "trace c")
    return path


def release(database: Path, folder: Path, **options) -> Path:
    with opened(str(database)) as reader:
        return write_release(reader, "lab", folder, **options)[0]


def test_it_holds_the_best_and_the_baseline_without_the_host(tuned: Path, tmp_path: Path) -> None:
    path = release(tuned, tmp_path / "out", top=2)
    with opened(str(path)) as reader:
        assert sorted(one.latency_s for one in reader.tried(LLVMPIPE.key, MATMUL.id)) == [0.01, 0.02, 0.09]
        assert not reader.tried(LLVMPIPE.key, CONV.id)
        assert {(kept.info.host, kept.info.pid) for kept in reader.sessions()} == {("", 0)}
        assert len(reader.model_kernels(CAPTURE)) == 7
    manifest = json.loads(manifest_path(path).read_text())
    assert path.name == f"lab-{manifest['content'][:12]}.wgtune.db"
    assert [(one["device"], one["kernels"], one["records"]) for one in manifest["covered"]] == [
        (LLVMPIPE.key, 1, 3),
        (RADEON.key, 1, 1),
    ]
    assert manifest["sha256"] in path.with_name(path.name.removesuffix(".db") + ".md").read_text()


def test_a_driver_without_a_name_is_told_as_such(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "x.db")) as store:
        add_demo(store)
        measure(store, store.begin_session(replace(session(), driver="")), MATMUL, ok(0.01), "a")
        measure(store, store.begin_session(session()), CONV, ok(0.01), "b")
        path, _ = write_release(store, "lab", tmp_path)
    page = path.with_name(path.name.removesuffix(".db") + ".md").read_text()
    assert "Drivers: a driver without a name, Mesa 22.3.6. " in page


def test_the_same_content_gives_the_same_bytes(tuned: Path, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "other.db")) as store:
        add_demo(store)
        measure(store, store.begin_session(session(RADEON)), MATMUL, ok(0.5), "other")
    merge([str(tmp_path / "other.db"), str(tuned)], str(tmp_path / "one.db"))
    merge([str(tuned), str(tmp_path / "other.db")], str(tmp_path / "two.db"))
    one, two = release(tmp_path / "one.db", tmp_path / "1"), release(tmp_path / "two.db", tmp_path / "2")
    assert one.name == two.name and one.read_bytes() == two.read_bytes()


def test_reading_never_changes_the_file_and_writing_is_refused(tuned: Path, tmp_path: Path) -> None:
    path = release(tuned, tmp_path / "out")
    before, files = path.read_bytes(), sorted(path.parent.iterdir())
    with Store.open(str(path), create=False) as store:
        assert store.best(LLVMPIPE.key, [MATMUL.id])
        with pytest.raises(DatabaseError):
            store.begin_session(session())
    assert check(str(path)) == []
    assert path.read_bytes() == before and sorted(path.parent.iterdir()) == files


def test_check_finds_other_bytes_and_other_content(tuned: Path, tmp_path: Path) -> None:
    path = release(tuned, tmp_path / "out")
    data = bytearray(path.read_bytes())
    data[60:64] = b"\1\2\3\4"  # the user version: no row changes
    os.chmod(path, 0o644)
    path.write_bytes(data)
    assert any("not the one in" in problem for problem in check(str(path)))
    at = data.index(b"Mesa 22.3.6")
    data[at : at + 11] = b"Mesa 99.9.9"
    path.write_bytes(data)
    assert any("content is not that of the release" in problem for problem in check(str(path)))


def test_nothing_to_release_and_unknown_devices_are_said(tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no verified records"):
        release(tuned, tmp_path / "out", tiers=["desktop"])
    with pytest.raises(UsageError, match="no device"):
        release(tuned, tmp_path / "out", devices=["metal:m9"])


def test_the_users_own_record_wins_where_it_is_as_good(tuned: Path, tmp_path: Path) -> None:
    path = release(tuned, tmp_path / "out")
    own = tmp_path / "own.db"
    with Store.open(str(own)) as store:
        add_demo(store)
        measure(store, store.begin_session(session()), MATMUL, ok(0.01), "mine")
    with open_layers(str(own), releases=[path], shipped=False) as layers:
        assert layers.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].trace == "mine"
        found = layers.best(RADEON.key, [CONV.id])[CONV.id]
        assert found.layer == path.name
        assert found.session_id in {kept.session_id for kept in layers.sessions()}
        assert [info.key for info in layers.devices()] == [LLVMPIPE.key, RADEON.key]
    with Store.open(str(own)) as store:
        measure(store, store.begin_session(session(RADEON)), CONV, ok(0.5), "slower")
    with open_layers(str(own), releases=[path], shipped=False) as layers:
        assert layers.best(RADEON.key, [CONV.id])[CONV.id].layer == path.name


def test_shipped_releases_are_found_without_a_database(tuned: Path, tmp_path: Path, monkeypatch) -> None:
    path = release(tuned, tmp_path / "shipped")
    monkeypatch.setattr(layers_module, "SHIPPED", path.parent)
    monkeypatch.setenv("WGTUNE_DATA", str(tmp_path / "nothing"))
    monkeypatch.delenv("WGTUNE_DB", raising=False)
    with open_layers() as layers:
        assert layers.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id].latency_s == 0.01
    with open_layers(shipped=False) as layers:
        assert not layers.devices()
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_release_is_told_and_left_out(tuned: Path, tmp_path: Path) -> None:
    good = release(tuned, tmp_path / "out")
    bad = good.with_name("bad.wgtune.db")
    bad.write_bytes(good.read_bytes()[:5000])
    told: list[str] = []
    with open_layers(str(tuned), releases=[good.parent], shipped=False, warn=told.append) as layers:
        assert layers.best(RADEON.key, [CONV.id])
    assert len(told) == 1 and "bad.wgtune.db" in told[0]
    with pytest.raises(DatabaseError, match="no release"):
        release_files([tmp_path / "missing"])
